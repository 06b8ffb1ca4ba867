"""The end of a Unix socket that takes questions goes on taking them, whatever the machine was short of for a moment."""

import os
import queue
import resource
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from node.looking import wire
from tests.support.waiting import wait_until


class Listener(socket.socket):
    failed = 0

    def accept(self) -> tuple[socket.socket, Any]:
        try:
            return super().accept()
        except OSError:
            self.failed += 1
            raise


@contextmanager
def no_descriptor_left() -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.dup(0)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_who_connects_while_descriptors_are_out_is_served_once_there_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wire, "SHORT_S", 0.01)
    came: queue.Queue[socket.socket | None] = queue.Queue()

    def take() -> None:
        for connection in wire.callers(listener):
            came.put(connection)
        came.put(None)

    with Listener(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as client:
        listener.bind(str(tmp_path / "x"))
        listener.listen(1)
        thread = threading.Thread(target=take, daemon=True)
        with no_descriptor_left():
            thread.start()
            client.connect(str(tmp_path / "x"))
            wait_until(lambda: bool(listener.failed), within_s=60)
        with came.get(timeout=60) or pytest.fail("it ended") as connection:
            connection.sendall(b"x")
            assert client.recv(1) == b"x"
        listener.shutdown(socket.SHUT_RDWR)
        assert came.get(timeout=60) is None
        thread.join(60)


def test_a_caller_for_whom_there_is_no_thread_loses_his_connection_and_gives_his_place_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    places = threading.BoundedSemaphore(1)

    def serve(connection: socket.socket) -> None:
        with connection:
            connection.sendall(b"x")
        places.release()

    def none_left(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    for start, heard in ((none_left, b""), (threading.Thread.start, b"x")):
        monkeypatch.setattr(threading.Thread, "start", start)
        here, there = socket.socketpair()
        with here:
            assert places.acquire(timeout=60)
            wire.serve_apart(serve, there, places)
            here.settimeout(60)
            assert here.recv(1) == heard
    assert places.acquire(timeout=60)
