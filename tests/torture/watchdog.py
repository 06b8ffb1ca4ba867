"""An arm that does not end: say where everybody stands, and end the run."""

import faulthandler
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

DUMP_S = 1.0  # for what was told to show its stacks
LOGS = 3
TAIL = 4_000  # characters of each


@contextmanager
def bounded(name: str, seconds: float, folder: Path) -> Iterator[None]:
    """End this process with status 1 when the block has not ended after `seconds`, and show on standard error the
    stacks of all threads here and of every receiver, as the newest logs below `folder` have them."""
    ended = threading.Event()

    def watch() -> None:
        if ended.wait(seconds):
            return
        print(f"\n{name}: not ended after {seconds:g} s. All threads of the torturer:", file=sys.stderr, flush=True)
        faulthandler.dump_traceback(sys.stderr)
        for pid, command in list(_descendants(os.getpid())):
            print(f"{pid}: {command}", file=sys.stderr)
            with suppress(OSError):
                os.kill(pid, signal.SIGABRT)  # a receiver shows its stacks in its log (tests/torture/nursery.py)
        time.sleep(DUMP_S)
        for log in sorted(folder.rglob("*.log"), key=lambda path: path.stat().st_mtime)[-LOGS:]:
            print(f"--- {log.name}\n{log.read_text(errors='replace')[-TAIL:]}", file=sys.stderr)
        sys.stderr.flush()
        os._exit(1)

    threading.Thread(target=watch, name="watchdog", daemon=True).start()
    try:
        yield
    finally:
        ended.set()


def _descendants(pid: int) -> Iterator[tuple[int, str]]:
    """(process id, command line), parents first."""
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):
            for child in map(int, task.read_text().split()):
                yield child, Path(f"/proc/{child}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                yield from _descendants(child)
