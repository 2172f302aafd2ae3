"""The executors that a command opens."""

from __future__ import annotations

import multiprocessing
import os
import signal

from gpt.cli._executors import open_executor


def test_open_executor_workers_survive_ctrl_c_from_the_start() -> None:
    """Ctrl-C does not kill a worker that is still importing: the signal is blocked until its handler is there."""
    with open_executor(2, None) as executor:
        workers = multiprocessing.active_children()
        for worker in workers:
            assert worker.pid
            os.kill(worker.pid, signal.SIGINT)
        assert executor
        assert (len(workers), executor.submit(int).result()) == (2, 0)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
