"""When two reports say the same, the second is not sent."""

import pytest

from ledger.records import ImageResult, ReportKind, TriagePriority
from ledger.statements import statement_of
from tests.support.mr import slice_result
from tests.support.records import judged, refused

HIGH, MEDIUM, LOW = TriagePriority.HIGH, TriagePriority.MEDIUM, TriagePriority.LOW


def said(*results: ImageResult, priority: TriagePriority = MEDIUM) -> str:
    return statement_of(results, priority)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ((judged(MEDIUM, 0.6),), (judged(MEDIUM, 0.7),)),  # another number is no other finding
        ((judged(MEDIUM, 0.6, in_doubt=True),), (judged(MEDIUM, 0.6),)),  # reports code both as Present
        ((judged(MEDIUM, 0.6),), (judged(MEDIUM, 0.6), judged(LOW, 0.1))),  # present in one image is present
    ],
)
def test_the_same_presence_is_the_same_statement(one: tuple[ImageResult, ...], other: tuple[ImageResult, ...]) -> None:
    assert said(*one) == said(*other)


@pytest.mark.parametrize(
    "other",
    [
        said(judged(MEDIUM, 0.6), priority=HIGH),
        said(judged(LOW, 0.1)),
        said(judged(LOW, 0.45, in_doubt=True)),
        said(judged(MEDIUM, 0.6), refused()),
    ],
)
def test_another_priority_presence_or_judgement_is_another_statement(other: str) -> None:
    assert said(judged(MEDIUM, 0.6)) != other


def test_a_slice_that_comes_later_is_another_statement() -> None:
    """The volume of a series grows with its slices, though the finding is present already."""
    assert said(slice_result(400), slice_result(300)) == said(slice_result(300), slice_result(400))
    assert said(slice_result(400)) != said(slice_result(400), slice_result(0, 0.1))
    assert said(slice_result(400), slice_result(300)) != said(slice_result(400), slice_result(301))


def test_a_final_report_says_more_of_slices_than_a_provisional_one() -> None:
    results = (judged(HIGH, 0.99), slice_result(400))
    provisional, final = (statement_of(results, HIGH, kind) for kind in (ReportKind.PROVISIONAL, ReportKind.FINAL))
    assert provisional != final
    chest = (judged(HIGH, 0.99),)
    assert statement_of(chest, HIGH, ReportKind.PROVISIONAL) == statement_of(chest, HIGH, ReportKind.FINAL)
