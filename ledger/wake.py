"""A commit wakes the next stage: one byte into the FIFO of everybody who waits for that stage on this machine.

Losing a byte is harmless, because every waiter also polls; so does who waits on another machine: a FIFO is its
machine's own even in a folder that several see. FIFOs, unlike UNIX sockets, have no path length limit.
"""

import contextlib
import os
import select
import threading
from pathlib import Path
from secrets import token_hex


class Wake:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._local = threading.local()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def listen(self, topic: str) -> int:
        """This thread's FIFO for `topic`, made on first use. Returns its file descriptor."""
        own: dict[str, int] = self._local.__dict__.setdefault("fifos", {})
        if topic not in own:
            path = self._folder / f"{topic}.{os.getpid()}-{token_hex(4)}"
            os.mkfifo(path, 0o600)
            own[topic] = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        return own[topic]

    def wait(self, topic: str, timeout_s: float) -> bool:
        """Return when `topic` is called, True, or after `timeout_s`, False."""
        fifo = self.listen(topic)
        poll = select.poll()  # select() fails beyond 1,024 descriptors
        poll.register(fifo, select.POLLIN)
        if not poll.poll(max(0.0, timeout_s) * 1000):
            return False
        with contextlib.suppress(BlockingIOError):
            os.read(fifo, 4096)
        return True

    def call(self, topic: str) -> None:
        """Wake every waiter of `topic`, in any process of this machine; never blocks."""
        for name in os.listdir(self._folder):
            if not name.startswith(f"{topic}."):
                continue
            path = self._folder / name
            try:
                fifo = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            except OSError:  # nobody reads it any more
                path.unlink(missing_ok=True)
                continue
            with contextlib.suppress(BlockingIOError):  # full: it will wake anyhow
                os.write(fifo, b"!")
            os.close(fifo)
