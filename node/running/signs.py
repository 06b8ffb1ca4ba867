"""Signs of life: what a receiver's threads leave in a pipe each second, and how the supervisor tells that one is stuck.

A process can live and take no caller: it is stopped, or its accepting thread hangs or has ended. Its siblings hide that
from a C-ECHO, and where it is alone callers wait for nobody. It is a pipe because whoever gives a sign must wait for
nothing, no disk and no lock. Silence is counted in the supervisor's turns: while that did not run itself (a frozen
container, a machine that thrashes), nobody was silent.
"""

import os
import time
from collections.abc import Callable
from contextlib import suppress
from enum import Enum
from typing import Final

from node.running.process import SIGNS_FD
from scp.network.engine import SIGN_EVERY_S

# Ten signs missed: more than a healthy process waits for a processor or for swapped memory, and with the two or three
# seconds that its successor takes to start well below the 30 s after which most callers give up.
PATIENCE_S: Final = 10.0
TURN_AT_MOST_S: Final = 1.0
_ACCEPTS, _RUNS, _ENDS = b"a", b"r", b"e"
_PIPE_BYTES: Final = 65536


class Stuck(Enum):
    """In which way a process lives and takes no callers."""

    DEAF = "deaf"  # what it has accepted it may still serve
    STOPPED = "stopped"  # as a whole: nothing that it holds can be served


class Signs:
    """In a receiver. Each of them is called by one thread, as often as it likes; none of them waits or raises."""

    def __init__(self, descriptor: int | None = None) -> None:
        """descriptor: the writing end of the supervisor's pipe; None: nobody watches."""
        self._descriptor = descriptor
        self._given = dict.fromkeys((_ACCEPTS, _RUNS), -SIGN_EVERY_S)

    def accepts(self) -> None:
        """The accepting thread took its turn."""
        self._give(_ACCEPTS)

    def runs(self) -> None:
        """The main thread took its turn."""
        self._give(_RUNS)

    def ends(self) -> None:
        """From now on there is no sign any more, and nothing is wrong."""
        self._write(_ENDS)

    def _give(self, sign: bytes) -> None:
        now = time.monotonic()
        if now - self._given[sign] >= SIGN_EVERY_S / 2:
            self._given[sign] = now
            self._write(sign)

    def _write(self, sign: bytes) -> None:
        if self._descriptor is not None:
            with suppress(OSError):  # the pipe is full, or the supervisor is gone
                os.write(self._descriptor, sign)


def inherited() -> Signs:
    """In a receiver: towards the supervisor that started it."""
    descriptor = os.environ.pop(SIGNS_FD, "")
    if not descriptor:
        return Signs()
    os.set_inheritable(int(descriptor), False)  # not our decoders'
    return Signs(int(descriptor))


class Watch:
    """In the supervisor: over one process. `writing` is the end that the process is given."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """clock: in seconds."""
        self._clock = clock
        self._reading, self.writing = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._looked_at = clock()
        self._silent_s: dict[bytes, float] = {}  # empty until it accepted for the first time
        self._ended = False

    def look(self) -> Stuck | None:
        """Once a turn: whether it is stuck. One that has not accepted yet, or said that it ends, is not."""
        now = self._clock()
        turn_s, self._looked_at = min(now - self._looked_at, TURN_AT_MOST_S), now
        said = self._read()
        self._ended = self._ended or _ENDS in said
        if not self._silent_s and _ACCEPTS not in said:
            return None
        for sign in (_ACCEPTS, _RUNS):
            self._silent_s[sign] = 0.0 if sign in said else self._silent_s.get(sign, 0.0) + turn_s
        if self._ended or self._silent_s[_ACCEPTS] < PATIENCE_S:
            return None
        return Stuck.STOPPED if self._silent_s[_RUNS] >= PATIENCE_S / 2 else Stuck.DEAF

    def _read(self) -> bytes:
        try:
            return os.read(self._reading, _PIPE_BYTES)
        except BlockingIOError:
            return b""

    def close(self) -> None:
        os.close(self._reading)
        os.close(self.writing)
