"""Who finds no memory to be served with is turned away; who comes after it is back is served."""

import socket
import time
from typing import Any

import pytest

from scp.network import native_connection, native_engine
from tests.support.bare_engines import bare_engine
from tests.support.rawscu import RawScu
from tests.support.waiting import wait_until


def test_want_of_memory_does_not_end_the_accepting_thread_not_even_in_its_log(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*arguments: Any, **facts: Any) -> None:
        raise MemoryError

    with bare_engine("native") as running, monkeypatch.context() as without_memory:
        without_memory.setattr(native_engine.NativeEngine, "_take", none)
        without_memory.setattr(native_engine, "log", type("Log", (), {"error": none}))
        with socket.create_connection(running.address, timeout=60) as refused:
            assert refused.recv(1) == b""
        without_memory.undo()
        with RawScu(running.address) as scu:
            assert scu.echo() == 0


def test_a_thread_that_dies_before_its_first_step_holds_up_neither_the_next_connection_nor_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with bare_engine("native") as running:
        with monkeypatch.context() as without_memory:
            never_born: list[object] = []
            without_memory.setattr(
                native_connection._thread, "start_new_thread", lambda *arguments: never_born.append(arguments) or 0
            )
            unborn = socket.create_connection(running.address, timeout=60)
            wait_until(lambda: never_born, 60)
        with RawScu(running.address) as scu:
            assert scu.echo() == 0
        monkeypatch.setattr(native_engine, "LAST_MOMENT_S", 60.0)
        began = time.monotonic()
    assert time.monotonic() - began < 30  # the engine's end did not wait for it
    with unborn:
        assert unborn.recv(1) == b""
