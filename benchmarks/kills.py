"""Kill a batch of packs and processes twenty times at random instants; in the end no line may be lost or doubled.

    python benchmarks/kills.py              # exits 1 when one is; writes docs/kills.md
    python benchmarks/kills.py --kills 5

Each run is `gpt batch --processes 2 --batch-size 32`, which is killed by SIGKILL, in turn the command itself or one of
its workers. A command whose worker was killed ends with an error or goes on; then it is killed too.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from bulk import serving_after, write_input

PAGE = Path(__file__).resolve().parent.parent / "docs" / "kills.md"
LINES = 100_000
LONGEST = 0.4

TEXT = """# Kill test

`gpt batch --processes 2 --batch-size 32` over {lines:,} lines, killed {kills} times by SIGKILL at random instants: in
turn the command itself, and one of its two worker processes. Each time the same command was started again.

```sh
python benchmarks/kills.py
```

The last result, with Python {python} on {cores} cores, in {seconds:.0f} s: **{lost} lines lost, {doubled} doubled.**
When it was killed, the output had

{sizes}

lines; the last run wrote the rest.
"""


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description="Kill a batch again and again.")
    parser.add_argument("--kills", type=int, default=20)
    kills = parser.parse_args().kills
    begun = time.monotonic()
    with serving_after(0.002) as url, tempfile.TemporaryDirectory() as folder:
        output = Path(folder, "out")
        command = [sys.executable, "-m", "gpt", "batch", str(write_input(Path(folder, "in"), LINES)), str(output)]
        command += ["--server-url", url, "--processes", "2", "--batch-size", "32"]
        sizes = [kill(command, output, number, random.Random(number)) for number in range(kills)]
        subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
        found = Counter(json.loads(line)["custom_id"] for line in output.open())
    lost, doubled = LINES - len(found), sum(count - 1 for count in found.values())
    print(f"{LINES:,} lines, {kills} kills at {sizes}: {lost} lost, {doubled} doubled")
    if kills >= 20:
        PAGE.write_text(
            TEXT.format(
                lines=LINES,
                kills=kills,
                seconds=time.monotonic() - begun,
                python=platform.python_version(),
                cores=os.cpu_count(),
                lost=lost,
                doubled=doubled,
                sizes=", ".join(f"{size:,}" for size in sizes),
            )
        )
    return 1 if lost or doubled else 0


def kill(command: list[str], output: Path, number: int, chance: random.Random) -> int:
    """Start a run, let it write something, kill it; return how many lines there are."""
    size = output.stat().st_size if output.exists() else 0
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        while process.poll() is None and (not output.exists() or output.stat().st_size <= size):
            time.sleep(0.001)
        time.sleep(chance.uniform(0, LONGEST))
        workers = children(process.pid)
        if number % 2 and workers:
            os.kill(chance.choice(workers), signal.SIGKILL)
            time.sleep(chance.uniform(0, LONGEST))
        assert process.poll() is None or number % 2, "the run ended before it was killed"
        process.kill()
    while any(Path(f"/proc/{worker}").exists() for worker in workers):
        time.sleep(0.01)  # they end when their command has
    return output.read_bytes().count(b"\n")


def children(pid: int) -> list[int]:
    """Return the worker processes of a command."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(path.read_text().rpartition(")")[2].split()[1])
            if parent == pid and b"spawn_main" in path.with_name("cmdline").read_bytes():
                found.append(int(path.parent.name))
        except (OSError, IndexError):  # it has ended
            pass
    return found


if __name__ == "__main__":
    sys.exit(main())
