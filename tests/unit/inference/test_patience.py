"""How long a model is waited for comes from what its answers take, and never from less than that says."""

import pytest

from inference.patience import ENOUGH, FIRST_LEAST_S, LEAST_S, RECENT, RUN_S, TIMES, Patience

MODEL, OTHER = "a" * 64, "b" * 64


def after(answers: int, took_s: float, images: int = 1) -> Patience:
    patience = Patience()
    for _ in range(answers):
        patience.answered(MODEL, images, took_s)
    return patience


def test_until_enough_answers_of_this_model_are_known_it_may_have_all_the_time() -> None:
    assert after(ENOUGH - 1, 1.0).allowed(MODEL, 1, False).within_s == RUN_S
    assert not after(ENOUGH - 1, 1.0).allowed(MODEL, 1, False).is_learned
    known = after(ENOUGH, 1.0)
    assert known.allowed(MODEL, 1, False).within_s == TIMES
    assert known.allowed(OTHER, 1, False).within_s == RUN_S
    assert known.all().within_s == RUN_S


def test_the_slowest_of_the_recent_answers_counts() -> None:
    patience = after(RECENT, 0.5)
    patience.answered(MODEL, 1, 2.0)
    assert patience.allowed(MODEL, 1, False).within_s == TIMES * 2.0
    assert patience.allowed(MODEL, 1, False).slowest_s == 2.0
    for _ in range(RECENT):
        patience.answered(MODEL, 1, 0.5)
    assert patience.allowed(MODEL, 1, False).within_s == TIMES * 0.5


@pytest.mark.parametrize(("before", "now", "times"), [(1, 1, 1), (1, 4, 4), (4, 8, 2), (8, 1, 1)])
def test_more_images_may_take_longer_in_proportion_and_fewer_may_take_as_long(
    before: int, now: int, times: int
) -> None:
    """A card computes one image in the time of eight."""
    assert after(ENOUGH, 0.5, before).allowed(MODEL, now, False).within_s == pytest.approx(TIMES * 0.5 * times)


def test_it_is_some_seconds_at_least_and_more_for_a_processs_first_answer() -> None:
    quick = after(ENOUGH, 0.001)
    assert quick.allowed(MODEL, 1, False).within_s == LEAST_S
    assert quick.allowed(MODEL, 1, True).within_s == FIRST_LEAST_S
    assert 5.0 <= LEAST_S <= FIRST_LEAST_S < RUN_S


def test_it_is_never_more_than_all_the_time_there_is() -> None:
    slow = after(ENOUGH, RUN_S / 2).allowed(MODEL, 8, False)
    assert slow.within_s == RUN_S
    assert not slow.is_learned, "nothing is cut short by it"
