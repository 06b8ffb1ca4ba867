"""What a sender may delete on our word is read from the disk, not from the memory of having written it."""

import ctypes
import os
import subprocess
from pathlib import Path

import pytest

from ledger.commitment_results import forget_cached

PAGE = os.sysconf("SC_PAGE_SIZE")
PAGES = 64
PROT_READ, MAP_SHARED = 1, 1


def resident_pages(path: Path) -> int:
    """Pages of the file in the page cache (mincore(2))."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
    libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    libc.mincore.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p]
    size, fd = path.stat().st_size, os.open(path, os.O_RDONLY)
    try:
        mapped = libc.mmap(None, size, PROT_READ, MAP_SHARED, fd, 0)
        state = ctypes.create_string_buffer(-(-size // PAGE))
        assert libc.mincore(mapped, size, state) == 0
        libc.munmap(mapped, size)
    finally:
        os.close(fd)
    return sum(page & 1 for page in state.raw)


def kind_of(folder: Path) -> str:
    return subprocess.run(["stat", "-f", "-c", "%T", folder], capture_output=True, text=True, check=True).stdout.strip()


def test_a_file_that_was_just_written_is_not_answered_for_from_memory(tmp_path: Path) -> None:
    if kind_of(tmp_path) in ("tmpfs", "ramfs"):
        pytest.skip("this folder is memory itself")
    path = tmp_path / "instance.dcm"
    path.write_bytes(os.urandom(PAGES * PAGE))
    assert resident_pages(path) == PAGES
    forget_cached(path)
    assert resident_pages(path) == 0
    assert len(path.read_bytes()) == PAGES * PAGE


def test_a_file_that_is_gone_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        forget_cached(tmp_path / "gone.dcm")
