"""seccomp: a process gives up kinds of sockets, and system calls that no part of this program makes, for good.

A filter of classic BPF (seccomp(2)), put together here: no library. What is refused fails with EAFNOSUPPORT or EPERM,
so that a library that tries it goes on without. Everything that the process starts inherits it.
"""

import ctypes
import os
import platform
import struct
import sys
from collections.abc import Collection
from typing import Final

from inference.landlock import CannotConfine, no_new_privileges

_SET, _THREADS_TOO = 1, 1  # SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC
_LOAD, _EQUAL, _AT_LEAST, _MASK, _RETURN = (
    0x20,
    0x15,
    0x35,
    0x54,
    0x06,
)  # BPF: LD|W|ABS, JMP|JEQ|K, JMP|JGE|K, ALU|AND|K, RET|K
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
_EPERM, _EAFNOSUPPORT = 1, 97
_NUMBER, _ARCHITECTURE, _FIRST, _SECOND, _THIRD = (
    0,
    4,
    16,
    24,
    32,
)  # of struct seccomp_data; the low half of an argument
_TYPE_BITS: Final = 0xF  # of socket(2)'s type; the others say close-on-exec and non-blocking
_X32: Final = 0x40000000

UNIX, INET, INET6 = 1, 2, 10
_STREAM, _TCP = 1, 6

# Architecture -> (its name in the kernel, its numbers of what is looked at)
_UNUSED: Final = (  # nobody here calls these
    "io_uring_setup", "io_uring_enter", "io_uring_register", "ptrace", "process_vm_readv", "process_vm_writev",
    "pidfd_getfd", "bpf", "perf_event_open", "userfaultfd", "mount", "umount2", "pivot_root", "unshare", "setns",
    "kexec_load", "init_module", "finit_module",
    "delete_module", "open_by_handle_at", "add_key", "request_key", "keyctl",
)  # fmt: skip
_TABLES: Final[dict[str, tuple[int, dict[str, int]]]] = {
    "x86_64": (0xC000003E, {
        "seccomp": 317, "socket": 41, "socketpair": 53, "io_uring_setup": 425, "io_uring_enter": 426,
        "io_uring_register": 427, "ptrace": 101, "process_vm_readv": 310, "process_vm_writev": 311, "pidfd_getfd": 438,
        "bpf": 321, "perf_event_open": 298, "userfaultfd": 323, "mount": 165, "umount2": 166, "pivot_root": 155,
        "unshare": 272, "setns": 308, "kexec_load": 246, "init_module": 175, "finit_module": 313, "delete_module": 176,
        "open_by_handle_at": 304, "add_key": 248, "request_key": 249, "keyctl": 250,
    }),
    "aarch64": (0xC00000B7, {
        "seccomp": 277, "socket": 198, "socketpair": 199, "io_uring_setup": 425, "io_uring_enter": 426,
        "io_uring_register": 427, "ptrace": 117, "process_vm_readv": 270, "process_vm_writev": 271, "pidfd_getfd": 438,
        "bpf": 280, "perf_event_open": 241, "userfaultfd": 282, "mount": 40, "umount2": 39, "pivot_root": 41,
        "unshare": 97, "setns": 268, "kexec_load": 104, "init_module": 105, "finit_module": 273, "delete_module": 106,
        "open_by_handle_at": 265, "add_key": 217, "request_key": 218, "keyctl": 219,
    }),
}  # fmt: skip


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def available() -> bool:
    """Whether a filter can be made for this machine."""
    return sys.platform.startswith("linux") and platform.machine() in _TABLES


def restrict(families: Collection[int], datagrams: bool = True) -> bool:
    """From now on sockets of these families only (AF_*); datagrams: whether INET sockets may be other than TCP. Holds
    for every thread. False where it cannot be done on this machine; raises CannotConfine where the kernel refuses."""
    if not available():
        return False
    no_new_privileges()
    code = program(platform.machine(), families, datagrams)
    given = _Program(len(code) // 8, code)
    libc = ctypes.CDLL(None, use_errno=True)
    number = _TABLES[platform.machine()][1]["seccomp"]
    if libc.syscall(ctypes.c_long(number), ctypes.c_long(_SET), ctypes.c_long(_THREADS_TOO), ctypes.byref(given)):
        error = ctypes.get_errno()
        raise CannotConfine(error, f"seccomp: {os.strerror(error)}")
    return True


def program(machine: str, families: Collection[int], datagrams: bool) -> bytes:
    """The filter. Each line of it: code, jump if true, jump if not, constant; jumps count from the next line."""
    architecture, numbers = _TABLES[machine]
    lines = [
        _line(_LOAD, _ARCHITECTURE), _line(_EQUAL, architecture, 1, 0), _refuse(_EPERM),
        _line(_LOAD, _NUMBER), _line(_AT_LEAST, _X32, 0, 1), _refuse(_EPERM),
    ]  # fmt: skip
    for name in _UNUSED:
        lines += [_line(_EQUAL, numbers[name], 0, 1), _refuse(_EPERM)]
    check = _family(families, datagrams)
    lines += [_line(_EQUAL, numbers["socket"], 1, 0), _line(_EQUAL, numbers["socketpair"], 0, len(check)), *check]
    return b"".join([*lines, _line(_RETURN, _ALLOW)])


def _family(families: Collection[int], datagrams: bool) -> list[bytes]:
    """What becomes of a socket."""
    lines = [_line(_LOAD, _FIRST)]
    for family in sorted(families):
        free = datagrams or family == UNIX
        allow = [_line(_RETURN, _ALLOW)] if free else _tcp_only()
        lines += [_line(_EQUAL, family, 0, len(allow)), *allow]
    return [*lines, _refuse(_EAFNOSUPPORT)]


def _tcp_only() -> list[bytes]:
    """Not MPTCP either, of which Landlock knows no ports."""
    return [
        _line(_LOAD, _SECOND), _line(_MASK, _TYPE_BITS), _line(_EQUAL, _STREAM, 0, 4),
        _line(_LOAD, _THIRD), _line(_EQUAL, 0, 1, 0), _line(_EQUAL, _TCP, 0, 1), _line(_RETURN, _ALLOW),
        _refuse(_EAFNOSUPPORT),
    ]  # fmt: skip


def _refuse(error: int) -> bytes:
    return _line(_RETURN, _ERRNO | error)


def _line(code: int, constant: int, if_true: int = 0, if_not: int = 0) -> bytes:
    return struct.pack("=HBBI", code, if_true, if_not, constant)
