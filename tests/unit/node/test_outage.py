"""A ledger that is away fills no log: it is said when it begins, each minute, and when it is over."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from structlog.testing import capture_logs

from ledger.errors import LedgerUnavailable
from node import log_events
from node.running.outage import QUIET_S, Outage

AWAY = LedgerUnavailable("no ledger")


@dataclass
class Clock:
    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def said() -> Iterator[list[Any]]:
    with capture_logs() as lines:
        yield lines


def test_an_outage_is_said_once_and_then_every_minute_with_its_length(said: list[Any]) -> None:
    clock = Clock()
    outage = Outage(clock)
    for _ in range(6 * 130):  # six loops' worth of failures a second
        outage.away(AWAY)
        clock.now += 1 / 6
    assert [line["event"] for line in said] == [log_events.LEDGER_UNAVAILABLE] * 3
    assert [line.get("away_s") for line in said] == [None, 60, 120]
    assert said[1]["unsaid"] > 300
    clock.now += QUIET_S
    outage.back()
    outage.back()
    assert [(line["event"], line["away_s"]) for line in said[3:]] == [(log_events.LEDGER_BACK, 130)]


def test_one_loop_that_succeeds_among_others_that_fail_is_no_end_and_no_new_beginning(said: list[Any]) -> None:
    clock = Clock()
    outage = Outage(clock)
    for _ in range(30):
        outage.away(AWAY)
        outage.back()
        clock.now += 1.0
    assert len(said) == 1


def test_the_next_outage_is_said_at_once(said: list[Any]) -> None:
    clock = Clock()
    outage = Outage(clock)
    outage.back()
    outage.away(AWAY)
    clock.now += QUIET_S
    outage.back()
    outage.away(AWAY)
    clock.now += 3600.0  # and nobody said that it was over
    outage.away(AWAY)
    away = [line for line in said if line["event"] == log_events.LEDGER_UNAVAILABLE]
    assert [line.get("away_s") for line in away] == [None, None, None]
