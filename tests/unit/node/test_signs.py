"""Who lives and takes no callers is found, and nobody else: not one that starts, ends, or was frozen with everybody."""

import os
from collections.abc import Iterator

import pytest

from node.running.signs import PATIENCE_S, TURN_AT_MOST_S, Signs, Stuck, Watch

TICK_S = 0.1


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("time.monotonic", clock)
    return clock


@pytest.fixture
def watch(clock: Clock) -> Iterator[Watch]:
    watch = Watch(clock)
    yield watch
    watch.close()


def pass_time(clock: Clock, watch: Watch, seconds: float, *signs: object) -> Stuck | None:
    """signs: what the receiver gives in each turn. The last word of the watch."""
    how = None
    for _ in range(round(seconds / TICK_S)):
        clock.now += TICK_S
        for sign in signs:
            sign()  # type: ignore[operator]
        how = watch.look()
    return how


def test_one_that_shows_life_is_left_alone_for_ever(clock: Clock, watch: Watch) -> None:
    signs = Signs(watch.writing)
    assert pass_time(clock, watch, 10 * PATIENCE_S, signs.accepts, signs.runs) is None


def test_a_stopped_process_is_found_in_time(clock: Clock, watch: Watch) -> None:
    signs = Signs(watch.writing)
    pass_time(clock, watch, 5, signs.accepts, signs.runs)
    assert pass_time(clock, watch, PATIENCE_S - 1.0) is None
    assert pass_time(clock, watch, 1.5) is Stuck.STOPPED


def test_a_process_whose_accepting_thread_hangs_is_told_from_one_that_is_stopped(clock: Clock, watch: Watch) -> None:
    signs = Signs(watch.writing)
    pass_time(clock, watch, 5, signs.accepts, signs.runs)
    assert pass_time(clock, watch, PATIENCE_S + 0.5, signs.runs) is Stuck.DEAF


def test_a_main_thread_that_is_busy_is_no_reason(clock: Clock, watch: Watch) -> None:
    signs = Signs(watch.writing)
    assert pass_time(clock, watch, 3 * PATIENCE_S, signs.accepts) is None


def test_one_that_still_starts_is_waited_for(clock: Clock, watch: Watch) -> None:
    signs = Signs(watch.writing)
    assert pass_time(clock, watch, 10 * PATIENCE_S) is None
    assert pass_time(clock, watch, 10 * PATIENCE_S, signs.runs) is None


def test_one_that_said_that_it_ends_is_not_killed_for_its_silence(clock: Clock, watch: Watch) -> None:
    signs = Signs(watch.writing)
    pass_time(clock, watch, 5, signs.accepts, signs.runs)
    signs.ends()
    assert pass_time(clock, watch, 10 * PATIENCE_S) is None


def test_what_was_frozen_together_with_the_supervisor_is_not_stuck(clock: Clock, watch: Watch) -> None:
    signs = Signs(watch.writing)
    pass_time(clock, watch, 5, signs.accepts, signs.runs)
    clock.now += 3600
    assert watch.look() is None
    assert pass_time(clock, watch, PATIENCE_S - 2 * TURN_AT_MOST_S) is None
    assert pass_time(clock, watch, 10 * PATIENCE_S, signs.accepts, signs.runs) is None


def test_signs_wait_for_nobody(watch: Watch) -> None:
    """The supervisor reads no more, or is gone."""
    os.write(watch.writing, bytes(65536))  # the pipe is full
    Signs(watch.writing).accepts()
    Signs(None).accepts()
    hear, say = os.pipe()
    os.close(hear)
    Signs(say).accepts()
    os.close(say)


def test_a_sign_is_given_about_once_a_second_however_often_it_is_asked_for(clock: Clock, watch: Watch) -> None:
    signs = Signs(watch.writing)
    for _ in range(10_000):
        clock.now += 0.001
        signs.accepts()
    assert 10 <= len(watch._read()) <= 20
