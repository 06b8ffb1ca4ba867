"""What passes through a pipe between a process and its child: a size, JSON, raw bytes; nothing is ever unpickled."""

import json
import os
import select
import struct
import time
from collections.abc import Sequence
from typing import Any, BinaryIO, Final

from inference.errors import SENSELESS

JSON_MAX: Final = 4_000_000
BLOBS_MAX: Final = 4_000_000_000  # bytes
COUNT_MAX: Final = JSON_MAX  # as many as can be named
_SIZE: Final = struct.Struct("<I")
Said = dict[str, Any]


class Gone(Exception):
    """The other end is closed, says what makes no sense, or the time is up."""


class Late(Gone):
    """The time is up."""


def packed(said: Said, blobs: Sequence[bytes | memoryview] = ()) -> list[bytes | memoryview]:
    text = json.dumps({**said, "blobs": [memoryview(blob).nbytes for blob in blobs]}).encode()
    return [_SIZE.pack(len(text)) + text, *blobs]


def send(fd: int, parts: Sequence[bytes | memoryview], deadline: float) -> None:
    """All of it before the deadline (time.monotonic); fd: not blocking. Raises Gone."""
    for part in parts:
        left = memoryview(part).cast("B")
        while len(left):
            _wait(fd, select.POLLOUT, deadline)
            try:
                left = left[os.write(fd, left) :]
            except BlockingIOError:
                continue
            except OSError:
                raise Gone from None


def receive(
    fd: int, deadline: float, json_max: int = JSON_MAX, blobs_max: int = BLOBS_MAX, count_max: int = COUNT_MAX
) -> tuple[Said, list[bytearray]]:
    """One message before the deadline, of no more than was expected: bytes of JSON, bytes of all blobs, blobs. Raises
    Gone."""
    (size,) = _SIZE.unpack(_exactly(fd, _SIZE.size, deadline))
    if size > json_max:
        raise Gone
    try:
        said = json.loads(_exactly(fd, size, deadline))
        sizes = [int(one) for one in said["blobs"]]
    except SENSELESS:
        raise Gone from None
    if len(sizes) > count_max or any(one < 0 for one in sizes) or sum(sizes) > blobs_max:
        raise Gone
    try:
        return said, [_exactly(fd, one, deadline) for one in sizes]
    except MemoryError:
        raise Gone from None


def read(stream: BinaryIO) -> tuple[Said, list[bytes]] | None:
    """The child's side: the next message, however long it takes; None at the end."""
    head = stream.read(_SIZE.size)
    if len(head) < _SIZE.size:
        return None
    said: Said = json.loads(stream.read(_SIZE.unpack(head)[0]))
    return said, [stream.read(size) for size in said["blobs"]]


def write(stream: BinaryIO, said: Said, blobs: Sequence[bytes | memoryview] = ()) -> None:
    """The child's side."""
    for part in packed(said, blobs):
        stream.write(part)
    stream.flush()


def _exactly(fd: int, size: int, deadline: float) -> bytearray:
    buffer = bytearray(size)
    view, filled = memoryview(buffer), 0
    while filled < size:
        _wait(fd, select.POLLIN, deadline)
        try:
            got = os.readv(fd, [view[filled:]])
        except OSError:  # closed by another thread
            raise Gone from None
        if got == 0:
            raise Gone
        filled += got
    return buffer


def _wait(fd: int, what: int, deadline: float) -> None:
    poll = select.poll()
    poll.register(fd, what)
    left_ms = (deadline - time.monotonic()) * 1000.0
    if left_ms <= 0 or not poll.poll(left_ms):
        raise Late
