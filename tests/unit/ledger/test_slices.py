"""A refused slice is a remark where its series was assessed; what could not be judged by itself never is."""

from dataclasses import replace

import pytest

from ledger.records import ImageResult, TriagePriority
from ledger.slices import (
    assessed,
    marked_words,
    refused_words,
    remarks,
    slices_marked,
    slices_refused,
    study_priority,
    why_not_assessed,
)
from tests.support.mr import SLICE_MODEL, slice_refused, slice_result
from tests.support.records import judged, not_applicable, refused

HIGH, NOT_ASSESSED, LOW = TriagePriority.HIGH, TriagePriority.NOT_ASSESSED, TriagePriority.LOW


def said(*results: ImageResult, series: str = "1") -> list[tuple[str, ImageResult]]:
    return [(series, result) for result in results]


def series_of(judged_slices: int, refused_slices: int, series: str = "1") -> list[tuple[str, ImageResult]]:
    return said(*[slice_refused()] * refused_slices, *[slice_result(9)] * judged_slices, series=series)


@pytest.mark.parametrize(
    ("slices", "refused", "was"),
    [
        (56, 0, True),
        (56, 2, True),
        (20, 2, True),  # a tenth
        (30, 3, True),
        (19, 2, False),
        (56, 6, False),
        (5, 1, False),
        (1, 1, False),
        (0, 0, False),
    ],
)
def test_a_series_is_assessed_when_at_most_a_tenth_of_its_slices_was_refused(
    slices: int, refused: int, was: bool
) -> None:
    assert assessed(slices, refused) is was


def test_a_refused_slice_of_a_volume_does_not_make_its_study_not_assessed() -> None:
    assert study_priority(series_of(54, 2)) is LOW
    assert study_priority(series_of(50, 6)) is NOT_ASSESSED
    assert study_priority(series_of(0, 1)) is NOT_ASSESSED


def test_one_series_without_a_volume_is_not_made_up_for_by_another() -> None:
    assert study_priority(series_of(100, 0, "1") + series_of(0, 2, "2")) is NOT_ASSESSED


def test_slices_of_two_models_are_counted_apart() -> None:
    other = replace(SLICE_MODEL, digest="99" * 32)
    both = series_of(30, 0) + said(slice_refused(other), *[slice_result(model=other)] * 4)
    assert study_priority(both) is NOT_ASSESSED


def test_an_image_that_could_not_be_judged_is_never_a_remark() -> None:
    beside = [*said(refused(), series="2"), *series_of(54, 2)]
    assert remarks(beside) == [False, True, True, *[False] * 54]
    assert study_priority(beside) is NOT_ASSESSED
    assert study_priority(said(refused(), *[judged(LOW, 0.1)] * 30)) is NOT_ASSESSED
    assert why_not_assessed(beside) == "The age is not known."


def test_what_is_flagged_stays_the_most_urgent() -> None:
    assert study_priority([*said(judged(HIGH), series="2"), *series_of(0, 5)]) is HIGH


def test_what_no_model_is_meant_for_has_no_priority() -> None:
    assert study_priority(said(not_applicable())) is None
    assert study_priority([]) is None


def test_slices_are_counted_of_all_that_were_meant_for_the_model() -> None:
    found = series_of(54, 2)
    assert slices_marked(found) == (("tumour", 54, 56),)
    assert marked_words(slices_marked(found)) == ["tumour marked in 54 of 56 slices, no alarm"]
    assert slices_refused(found) == (("The image shows one grey only.", 2, 56),)
    assert refused_words(slices_refused(found)) == "2 of 56 slices could not be assessed: The image shows one grey only"
    assert why_not_assessed(found) == ""


def test_of_a_series_that_was_not_assessed_the_words_are_the_reason() -> None:
    found = series_of(3, 2)
    assert why_not_assessed(found) == "2 of 5 slices could not be assessed: The image shows one grey only"


def test_of_several_reasons_each_has_its_number() -> None:
    odd = replace(slice_refused(), reason="It is odd.")
    found = [*series_of(53, 2), *said(odd)]
    words = "3 of 56 slices could not be assessed: It is odd (1); The image shows one grey only (2)"
    assert refused_words(slices_refused(found)) == words
    assert refused_words(()) == ""
