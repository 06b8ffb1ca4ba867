"""A child that models run in may say anything: the other end takes it for gone, and never falls with it."""

import contextlib
import json
import os
import struct
import threading
import time

import pytest

from inference.frames import BLOBS_MAX, JSON_MAX, Gone, packed, receive


def heard(data: bytes) -> tuple[dict[str, object], list[bytearray]]:
    """What is received of a child that says this and closes its end."""
    out, into = os.pipe()

    def say() -> None:
        with contextlib.suppress(BrokenPipeError), os.fdopen(into, "wb") as file:  # who has heard enough hears no more
            file.write(data)

    child = threading.Thread(target=say)  # beside the reader: what a pipe holds is for the machine to say
    child.start()
    try:
        return receive(out, time.monotonic() + 60)
    finally:
        os.close(out)
        child.join(60)


def said(text: str, blobs: bytes = b"") -> bytes:
    return struct.pack("<I", len(text.encode())) + text.encode() + blobs


def test_what_was_packed_is_received() -> None:
    message = b"".join(bytes(part) for part in packed({"a": 1}, [b"xy", b""]))
    assert heard(message) == ({"a": 1, "blobs": [2, 0]}, [bytearray(b"xy"), bytearray()])


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"\x02", id="half a size"),
        pytest.param(struct.pack("<I", JSON_MAX + 1), id="a text longer than any"),
        pytest.param(said("{}")[:-1], id="a text that is cut"),
        pytest.param(said("{"), id="no JSON"),
        pytest.param(said("[]"), id="a list"),
        pytest.param(said("7"), id="a number"),
        pytest.param(said("{}"), id="without its blobs"),
        pytest.param(said('{"blobs": 3}'), id="blobs that are no list"),
        pytest.param(said('{"blobs": [null]}'), id="a size that is none"),
        pytest.param(said('{"blobs": [Infinity]}'), id="a size without end"),
        pytest.param(said('{"blobs": [-1]}'), id="less than nothing"),
        pytest.param(said(json.dumps({"blobs": [BLOBS_MAX, 1]})), id="more than is believed"),
        pytest.param(said('{"blobs": [3]}', b"ab"), id="a blob that is cut"),
        pytest.param(said("[" * 100_000), id="deeper than can be read"),
    ],
)
def test_what_makes_no_sense_is_gone(data: bytes) -> None:
    with pytest.raises(Gone):
        heard(data)
