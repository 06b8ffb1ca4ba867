"""How long a study is waited for, by how its sender sends."""

import pytest

from config.settings import StudySettings
from ledger.peers import IN_ALL, Gaps
from scp.callers.habits import (
    ENOUGH_PAUSES,
    ENOUGH_RELEASES,
    ENOUGH_STUDIES,
    Habits,
    after_image,
    after_release,
    bucket_of,
    end_s,
)

SETTINGS = StudySettings()


def habits(gaps: Gaps) -> Habits:
    return Habits(gaps, SETTINGS.complete_after_max_s)


def paused(seconds: float, times: int, between: bool = False) -> dict[tuple[bool, int], int]:
    return {(between, bucket_of(seconds)): times}


@pytest.mark.parametrize("pause_s", [0.0, 0.0005, 0.001, 0.0011, 0.01, 1.0, 20.0, 119.9, 900.0, 1e9])
def test_a_pause_lies_in_the_class_that_ends_at_or_after_it(pause_s: float) -> None:
    bucket = bucket_of(pause_s)
    assert end_s(bucket) >= min(pause_s, end_s(60)) - 1e-9
    assert bucket == 0 or end_s(bucket - 1) < pause_s


def test_a_sender_that_nobody_knows_is_waited_for_as_the_settings_say() -> None:
    wait = after_image(SETTINGS, "CT1", habits({}))
    assert (wait.after_s, wait.limit_s) == (20.0, 900.0)
    assert wait.because == "No image came for 20 s: how CT1 sends is not known yet."


@pytest.mark.parametrize(
    ("pauses", "studies", "is_known"),
    [
        (ENOUGH_PAUSES, ENOUGH_STUDIES, True),
        (ENOUGH_PAUSES - 1, ENOUGH_STUDIES, False),
        (10_000, ENOUGH_STUDIES - 1, False),  # one long study says how it sends, not how it pauses
    ],
)
def test_a_sender_is_known_when_enough_of_it_was_seen(pauses: int, studies: int, is_known: bool) -> None:
    wait = after_image(SETTINGS, "CT1", habits({**paused(0.01, pauses), (False, IN_ALL): studies}))
    assert (wait.after_s != 20.0) is is_known


def test_a_sender_is_waited_for_twice_as_long_as_it_pauses() -> None:
    wait = after_image(SETTINGS, "CT1", habits({**paused(0.01, 30_000), **paused(8.0, 60), (False, IN_ALL): 100}))
    assert 16.0 <= wait.after_s <= 16.0 * 2**0.5 + 0.1
    assert "of 100 studies from CT1 hardly one paused for half as long" in wait.because


def test_a_pause_between_two_series_counts_however_many_slices_a_series_has() -> None:
    """Against all pauses it is one in ten thousand; against studies it is one in each."""
    counted = {**paused(0.01, 1_000_000), **paused(30.0, 100), (False, IN_ALL): 100}
    assert after_image(SETTINGS, "CT1", habits(counted)).after_s >= 60.0


def test_one_study_in_a_hundred_may_pause_for_longer() -> None:
    counted = {**paused(1.0, 1000), **paused(100.0, 1), (False, IN_ALL): 100}
    assert after_image(SETTINGS, "CT1", habits(counted)).after_s < 10.0
    counted |= paused(100.0, 2)
    assert after_image(SETTINGS, "CT1", habits(counted)).after_s > 100.0


@pytest.mark.parametrize(("pause_s", "after_s"), [(0.001, 5.0), (90.0, 120.0)])
def test_what_is_learned_stays_between_two_bounds(pause_s: float, after_s: float) -> None:
    wait = after_image(SETTINGS, "CT1", habits({**paused(pause_s, 100), (False, IN_ALL): 50}))
    assert wait.after_s == after_s
    assert "nobody is waited for" in wait.because


def test_both_bounds_at_one_value_and_nothing_is_learned() -> None:
    fixed = StudySettings(complete_after_s=7.0, complete_after_min_s=7.0, complete_after_max_s=7.0)
    counted = {**paused(0.5, 1000), (False, IN_ALL): 100}
    assert after_image(fixed, "CT1", Habits(counted, 7.0)).after_s == 7.0


def test_pauses_beyond_the_bound_are_new_beginnings() -> None:
    counted = {**paused(1.0, 1000), **paused(600.0, 100), (False, IN_ALL): 100}
    assert after_image(SETTINGS, "CT1", habits(counted)).after_s < 10.0


def test_the_release_of_a_sender_that_nobody_knows_is_no_evidence() -> None:
    assert after_release(SETTINGS, "CT1", habits({(True, IN_ALL): ENOUGH_RELEASES - 1})) is None


def test_a_sender_that_releases_when_it_has_sent_all_is_taken_at_its_word() -> None:
    wait = after_release(SETTINGS, "CT1", habits({(True, IN_ALL): ENOUGH_RELEASES}))
    assert wait is not None
    assert wait.after_s == SETTINGS.complete_after_release_s
    assert wait.because.startswith("CT1 released the association of the newest image and sent no other for 3 s")


def test_a_sender_that_opens_an_association_for_each_image_is_not_complete_after_each() -> None:
    counted = {**paused(9.0, 300, between=True), (True, IN_ALL): 320, (False, IN_ALL): 20}
    assert after_release(SETTINGS, "CT1", habits(counted)) is None


def test_a_sender_that_goes_on_soon_after_a_release_is_waited_for_so_long() -> None:
    counted = {**paused(2.0, 100, between=True), (True, IN_ALL): 200}
    wait = after_release(SETTINGS, "CT1", habits(counted))
    assert wait is not None
    assert 4.0 <= wait.after_s < 6.0


def test_pauses_within_an_association_say_nothing_of_what_follows_a_release() -> None:
    counted = {**paused(9.0, 500), (False, IN_ALL): 100, (True, IN_ALL): 100}
    wait = after_release(SETTINGS, "CT1", habits(counted))
    assert wait is not None
    assert wait.after_s == SETTINGS.complete_after_release_s


def test_what_follows_one_release_in_a_hundred_is_a_late_image() -> None:
    counted = {**paused(60.0, 1, between=True), (True, IN_ALL): 100}
    assert after_release(SETTINGS, "CT1", habits(counted)) is not None
    assert after_release(SETTINGS, "CT1", habits(counted | {(True, IN_ALL): 99})) is None
