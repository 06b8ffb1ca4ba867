"""A role that does not end by itself is ended, and with it what would outlive it."""

import os
import threading

import pytest

from node.running.process import exit_at_latest


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
