"""What a service manager hears of the node is true: ready, alive, stopping, and silence when a restart would help."""

import os
import socket
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from config import Settings
from node.running.service import Pulse, Service, answers
from tests.support.waiting import wait_until


@pytest.fixture
def manager(monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """Listens as systemd does, at an address that is short wherever the tests have their folders: 107 bytes at most."""
    with (
        tempfile.TemporaryDirectory(prefix="ot-", dir="/tmp") as folder,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening,
    ):
        listening.bind(f"{folder}/notify")
        listening.settimeout(10)
        monkeypatch.setenv("NOTIFY_SOCKET", f"{folder}/notify")
        yield listening


def test_the_manager_hears_and_the_children_do_not_inherit_his_ear(manager: socket.socket) -> None:
    service = Service()
    service.say("READY=1", "STATUS=Answers on port 11112")
    assert manager.recv(100) == b"READY=1\nSTATUS=Answers on port 11112"
    assert "NOTIFY_SOCKET" not in os.environ
    Service().say("STOPPING=1")  # nobody listens: nothing happens
    manager.settimeout(0.05)
    with pytest.raises(TimeoutError):
        manager.recv(100)


def test_an_abstract_socket_is_an_address_too(monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"opentriage-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(f"\0{name}")
        listening.settimeout(10)
        monkeypatch.setenv("NOTIFY_SOCKET", f"@{name}")
        Service().say("READY=1")
        assert listening.recv(100) == b"READY=1"


def test_a_manager_who_is_gone_stops_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "nobody"))
    Service().say("READY=1")


def test_signs_of_life_come_while_there_is_life(manager: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "200000")
    service, stop, lives = Service(), threading.Event(), threading.Event()
    asked: list[bool] = []

    def alive() -> bool:
        asked.append(lives.is_set())
        return lives.is_set()

    service.watch(stop, alive)
    service.watch(stop, alive)  # once is enough
    wait_until(lambda: len(asked) >= 3, 10)
    manager.settimeout(0.01)
    with pytest.raises(TimeoutError):
        manager.recv(100)
    lives.set()
    manager.settimeout(10)
    assert manager.recv(100) == b"WATCHDOG=1"
    stop.set()
    assert [thread.name for thread in threading.enumerate()].count("watchdog") <= 1


def test_another_process_es_watchdog_is_not_ours(manager: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "200000")
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid() + 1))
    assert Service().patience_s == 0


def test_a_full_or_choosy_receiver_is_alive_and_one_that_takes_nobody_is_not() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert not answers("127.0.0.1", port, 0.2)  # the kernel takes the connection, nobody else does

        def cut_off() -> None:
            for _ in range(2):
                server.accept()[0].close()

        closing = threading.Thread(target=cut_off)
        closing.start()
        assert answers("127.0.0.1", port, 10)
        closing.join()
    assert not answers("127.0.0.1", port, 0.2)


def test_a_supervisor_that_takes_no_turn_is_not_alive_unless_it_is_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("node.running.service.own_echo", lambda settings, timeout_s: True)
    pulse = Pulse(Settings())
    assert pulse.alive()
    monkeypatch.setattr("node.running.service.STUCK_S", 0.0)
    assert not pulse.alive()
    pulse.busy = True
    assert pulse.alive()
