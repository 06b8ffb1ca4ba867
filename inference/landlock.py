"""Landlock: a process gives up, for itself and all that it starts, every file and TCP port that it does not name.

Linux 5.13 or later, no privilege, no dependency: three system calls. What a kernel is too old to hold back is left out
and can be read from `abi` (landlock(7)); a limit once set is never lifted again.
"""

import ctypes
import os
import struct
import sys
from collections.abc import Iterable, Mapping
from enum import IntFlag
from pathlib import Path
from typing import Final

_CREATE, _ADD, _RESTRICT = 444, 445, 446  # the same numbers on every architecture
_VERSION: Final = 1
_PATH_BENEATH, _NET_PORT = 1, 2
_NO_NEW_PRIVS, _DUMPABLE = 38, 4  # of prctl(2)
_CAPABILITIES: Final = 0x20080522  # _LINUX_CAPABILITY_VERSION_3
_OF_OTHERS: Final = (19, 21, 38)  # CAP_SYS_PTRACE, CAP_SYS_ADMIN, CAP_PERFMON
_PATH: Final = struct.Struct("=Qi")  # packed: struct landlock_path_beneath_attr
_PORT: Final = struct.Struct("=QQ")


class Right(IntFlag):
    """LANDLOCK_ACCESS_FS_*."""

    EXECUTE = 1 << 0
    WRITE_FILE = 1 << 1
    READ_FILE = 1 << 2
    READ_DIR = 1 << 3
    REMOVE_DIR = 1 << 4
    REMOVE_FILE = 1 << 5
    MAKE_CHAR = 1 << 6
    MAKE_DIR = 1 << 7
    MAKE_REG = 1 << 8
    MAKE_SOCK = 1 << 9
    MAKE_FIFO = 1 << 10
    MAKE_BLOCK = 1 << 11
    MAKE_SYM = 1 << 12
    REFER = 1 << 13  # from ABI 2 on
    TRUNCATE = 1 << 14  # 3
    IOCTL_DEV = 1 << 15  # 5


READ: Final = Right.READ_FILE | Right.READ_DIR
RUN: Final = READ | Right.EXECUTE
DEVICE: Final = READ | Right.WRITE_FILE | Right.IOCTL_DEV
WRITE: Final = (
    READ | Right.WRITE_FILE | Right.TRUNCATE | Right.REFER | Right.REMOVE_DIR | Right.REMOVE_FILE
    | Right.MAKE_DIR | Right.MAKE_REG | Right.MAKE_SOCK | Right.MAKE_FIFO
)  # fmt: skip
ADD: Final = Right.READ_DIR | Right.REFER | Right.REMOVE_FILE | Right.MAKE_DIR | Right.MAKE_REG  # and to open no file
_OF_FILES: Final = Right.EXECUTE | Right.WRITE_FILE | Right.READ_FILE | Right.TRUNCATE | Right.IOCTL_DEV
_EVERY: Final = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 4: (1 << 15) - 1, 5: (1 << 16) - 1}
_BIND, _CONNECT = 1, 2
TCP_FROM: Final = 4  # the first ABI that knows TCP ports
SCOPES_FROM: Final = 6  # that keeps from abstract Unix sockets of others, and from sending them signals
_ABSTRACT_SOCKETS, _SIGNALS = 1, 2


class CannotConfine(OSError):
    """The kernel refused what it says that it can do."""


def abi() -> int:
    """What this kernel knows of Landlock; 0: nothing, or it is switched off."""
    if not sys.platform.startswith("linux"):
        return 0
    return max(0, int(_libc().syscall(_CREATE, None, 0, _VERSION)))


def restrict(
    files: Mapping[Path, Right], listen: Iterable[int] | None = None, call: Iterable[int] | None = None
) -> int:
    """Allow these files and folders and what is below them, and no other; the ABI it was done with, 0: not at all.

    Names that do not exist are left out. listen, call: the TCP ports to bind and to connect to; None: any. Call with
    one thread only: others are not restricted. Raises CannotConfine.
    """
    known = abi()
    if not known:
        return 0
    if len(os.listdir("/proc/self/task")) > 1:
        raise CannotConfine(0, "Landlock binds one thread, and there are more")
    rights = _EVERY[min(known, max(_EVERY))]
    ports = {_BIND: listen, _CONNECT: call} if known >= TCP_FROM else {}
    handled_ports = sum(flag for flag, allowed in ports.items() if allowed is not None)
    scoped = _ABSTRACT_SOCKETS | _SIGNALS if known >= SCOPES_FROM else 0
    ruleset = _call(_CREATE, *_attributes(known, rights, handled_ports, scoped), 0)
    try:
        for path, wanted in files.items():
            _allow_path(ruleset, path, int(wanted) & rights)
        for flag, allowed in ports.items():
            for port in allowed or ():
                _call(_ADD, ruleset, _NET_PORT, _buffer(_PORT.pack(flag, port)), 0)
        no_new_privileges()
        _call(_RESTRICT, ruleset, 0)
    finally:
        os.close(ruleset)
    return known


def no_new_privileges() -> None:
    """No program that is started from now on gains a right by a mode bit or a file capability (prctl(2))."""
    if _libc().prctl(_NO_NEW_PRIVS, 1, 0, 0, 0):
        raise CannotConfine(ctypes.get_errno(), "no_new_privs was refused")


def no_memory_image() -> None:
    """This process leaves no core file, and no other process of its user reads its memory. Not passed on by exec."""
    if _libc().prctl(_DUMPABLE, 0, 0, 0, 0):
        raise CannotConfine(ctypes.get_errno(), "PR_SET_DUMPABLE was refused")


def see_no_others() -> None:
    """Give up the capabilities of root to look into processes of others: as any other user, Landlock then refuses it
    to read their environment and memory maps too. Of the calling thread, and what it starts. Raises CannotConfine."""
    libc, header = _libc(), ctypes.create_string_buffer(struct.pack("=Ii", _CAPABILITIES, 0), 8)
    sets = ctypes.create_string_buffer(24)  # effective, permitted, inheritable: of 0 to 31, then of 32 to 63
    if libc.capget(header, sets):
        raise CannotConfine(ctypes.get_errno(), "capabilities cannot be read")
    low, high = (~(sum(1 << one for one in _OF_OTHERS) >> shift) & 0xFFFFFFFF for shift in (0, 32))
    known = struct.unpack("=6I", sets.raw)
    kept = [one & mask for one, mask in zip(known, [low] * 3 + [high] * 3, strict=True)]
    sets.raw = struct.pack("=6I", *kept)
    if known != tuple(kept) and libc.capset(header, sets):
        raise CannotConfine(ctypes.get_errno(), "capabilities cannot be given up")


def _attributes(known: int, files: int, ports: int, scoped: int) -> tuple[object, int]:
    """struct landlock_ruleset_attr, as long as this kernel knows it."""
    size = 24 if known >= SCOPES_FROM else 16 if known >= TCP_FROM else 8
    return _buffer(struct.pack("=QQQ", files, ports, scoped)[:size]), size


def _allow_path(ruleset: int, path: Path, rights: int) -> None:
    try:
        opened = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    try:
        if not path.is_dir():
            rights &= _OF_FILES
        _call(_ADD, ruleset, _PATH_BENEATH, _buffer(_PATH.pack(rights, opened)), 0)
    finally:
        os.close(opened)


def _buffer(data: bytes) -> object:
    return ctypes.create_string_buffer(data, len(data))


def _call(number: int, *arguments: object) -> int:
    given = [ctypes.c_long(one) if isinstance(one, int) else ctypes.byref(one) for one in arguments]  # type: ignore[arg-type]
    done = int(_libc().syscall(ctypes.c_long(number), *given))
    if done < 0:
        error = ctypes.get_errno()
        raise CannotConfine(error, f"Landlock: {os.strerror(error)}")
    return done


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)
