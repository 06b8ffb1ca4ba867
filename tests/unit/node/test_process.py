"""A role hears signals whatever it does; one that does not end by itself is ended, and what would outlive it too."""

import os
import signal
import threading

import pytest

from node.running.process import exit_at_latest, on_signal


def test_what_would_outlive_a_role_is_ended_before_it(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    stop, ended = threading.Event(), threading.Event()

    def leave(status: int) -> None:
        done.append(f"exit {status}")
        ended.set()

    monkeypatch.setattr(os, "_exit", leave)
    exit_at_latest(stop, 0.0, lambda: done.append("last"))
    assert not done
    stop.set()
    assert ended.wait(30)
    assert done == ["last", "exit 1"]


def test_a_signal_in_the_middle_of_a_wait_stops_nothing_else() -> None:
    before = signal.getsignal(signal.SIGUSR1)
    asked = on_signal(signal.SIGUSR1)
    try:
        with asked._cond:  # as within asked.wait(), before it sleeps or after
            os.kill(os.getpid(), signal.SIGUSR1)
        assert asked.wait(30)
    finally:
        signal.signal(signal.SIGUSR1, before)
