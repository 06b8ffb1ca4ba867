"""The stack on which a thread's signals are heard (sigaltstack(2)) stays what it was.

OpenVINO's CPU plugin gives the thread that loads it one of its own and takes it back when it ends, each plugin putting
back the one before it. Plugins that end in another order leave freed memory behind, and the next signal, such as that
of Ctrl-C, kills the process by a segmentation fault (seen with OpenVINO 2026.4.1 and two packages).
"""

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

_DISABLED: Final = 2  # SS_DISABLE: signals are heard on the thread's ordinary stack


class _Stack(ctypes.Structure):
    _fields_ = (("ss_sp", ctypes.c_void_p), ("ss_flags", ctypes.c_int), ("ss_size", ctypes.c_size_t))


@contextmanager
def kept() -> Iterator[None]:
    """Whatever the block does to this thread's stack for signals is undone behind it. On Linux; elsewhere nothing."""
    if sys.platform != "linux":
        yield
        return
    libc, before = ctypes.CDLL(None), _Stack()
    libc.sigaltstack(None, ctypes.byref(before))
    try:
        yield
    finally:
        if libc.sigaltstack(ctypes.byref(before), None):  # too small by now for what the processor has to save
            libc.sigaltstack(ctypes.byref(_Stack(None, _DISABLED, 0)), None)
