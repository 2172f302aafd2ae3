"""The suite's own fixtures: they hold in whatever way the suite is started."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.skipif(sys.platform == "win32", reason="needs a POSIX shell")
def test_conftest_given_sigint_ignored_by_the_shell_restores_interrupts(tmp_path: Path) -> None:
    """In a process that was started with SIGINT ignored, as background jobs are, tests still see interrupts."""
    test = tmp_path / "test_it.py"
    test.write_text(
        "import signal\ndef test_it():\n    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler\n"
    )
    command = f"trap '' INT; exec '{sys.executable}' -m pytest -q -p tests.conftest -p no:cacheprovider '{test}'"
    done = subprocess.run(["sh", "-c", command], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout
