"""Which connection goes when there are too many."""

import asyncio

import pytest
from structlog.testing import capture_logs

from node.web import crowd
from node.web.crowd import Crowd


class Caller:
    def __init__(self, address: str, waits: float | None = None, unread: float | None = None) -> None:
        self.address, self.waits_since, self.unread_since = address, waits, unread
        self.is_dropped = False

    def drop(self) -> None:
        self.is_dropped = True


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crowd, "CONNECTIONS_MAX", 4)
    monkeypatch.setattr(crowd, "MOMENT_S", 0.0)


def dropped(*callers: Caller) -> list[int]:
    async def come() -> None:
        gathered = Crowd()
        for one in callers:
            gathered.enter(one)
        await asyncio.sleep(0.05)

    asyncio.run(come())
    return [at for at, one in enumerate(callers) if one.is_dropped]


def test_within_its_bounds_nobody_goes() -> None:
    assert dropped(*(Caller("a", float(at)) for at in range(4))) == []


def test_the_longest_wait_of_the_address_with_most_goes() -> None:
    assert dropped(Caller("b", 0.5), Caller("a", 3.0), Caller("a", 1.0), Caller("a", 2.0), Caller("c", 9.0)) == [2]


def test_who_is_being_served_stays_whatever_comes() -> None:
    assert dropped(*(Caller("a") for _ in range(5))) == []
    assert dropped(*(Caller("a") for _ in range(5)), Caller("b", 1.0)) == [5]


def test_answers_that_nobody_reads_go_when_nobody_else_waits_and_the_oldest_first() -> None:
    assert dropped(*(Caller("a") for _ in range(3)), Caller("a", unread=2.0), Caller("a", unread=1.0)) == [4]
    assert dropped(*(Caller("a") for _ in range(3)), Caller("a", unread=2.0), Caller("a", 1.0)) == [4]
    assert dropped(*(Caller("a") for _ in range(4)), Caller("a", unread=2.0), Caller("a", 1.0)) == [4, 5]


def test_above_twice_the_bound_there_is_no_moment_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crowd, "MOMENT_S", 60.0)
    monkeypatch.setattr(crowd, "ALL_OF_THEM", 8)
    assert dropped(*(Caller("a", float(at)) for at in range(8))) == []
    assert dropped(*(Caller("a", float(at)) for at in range(9))) == [0, 1, 2, 3, 4]


def test_one_line_a_minute_says_that_somebody_went() -> None:
    with capture_logs() as logs:
        assert len(dropped(*(Caller("192.0.2.1", float(at)) for at in range(50)))) == 46
    assert [(line["event"], line["peer"], line["dropped"], line["open"]) for line in logs] == [
        ("connections_dropped", "192.0.2.1", 46, 4)
    ]
