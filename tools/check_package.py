"""Check a built wheel and sdist: their metadata, and the sdist's own tests against the wheel, freshly installed."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import tempfile
import venv
from pathlib import Path


def main(dist: Path, tests: list[str]) -> None:
    """Install the wheel into a new environment, unpack the sdist and run its tests, or those that are named."""
    (wheel,) = dist.glob("*.whl")
    (sdist,) = dist.glob("*.tar.gz")
    run(sys.executable, "-m", "twine", "check", "--strict", wheel, sdist)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        with tarfile.open(sdist) as archive:
            archive.extractall(root, filter="data")
        unpacked = root / sdist.name.removesuffix(".tar.gz")
        venv.create(root / "venv", with_pip=True)
        python = root / "venv" / ("Scripts" if sys.platform == "win32" else "bin") / "python"
        run(python, "-m", "pip", "install", "--quiet", f"{wheel.resolve()}[test]")
        # The tests import the wheel: the sdist's own package lies in src/, which is not on the path.
        run(python, "-m", "pytest", "-p", "no:cacheprovider", *tests, cwd=unpacked)


def run(*command: str | Path, cwd: Path | None = None) -> None:
    """Run a command and fail with it."""
    subprocess.run([str(part) for part in command], cwd=cwd, check=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
