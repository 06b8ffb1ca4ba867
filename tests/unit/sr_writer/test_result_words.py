"""What may be said, and what never is."""

import pytest

from ledger.records import TriagePriority
from sr_writer.words import percent, sayable, series_description, spoken
from tests.support.findings import analysed, finding


@pytest.mark.parametrize("text", ["a normal chest", "NORMAL", "priority LOW", "LOW", "Normally read", "normality"])
def test_a_forbidden_word_silences_the_text(text: str) -> None:
    assert sayable(text, "instead") == "instead"


@pytest.mark.parametrize(
    "text", ["below its operating point", "slow growth", "abnormal", "set too low", "Low risk", "read  with\npriority"]
)
def test_other_words_pass(text: str) -> None:
    assert sayable(text) == " ".join(text.split())


def test_an_internal_class_is_never_spoken() -> None:
    said = spoken(analysed(finding(), finding("normal", 0.9)))
    assert [f.label for f in said] == ["pneumonia"]


def test_no_certainty_is_claimed() -> None:
    assert percent(1.0) == ">99.9"
    assert percent(0.9994) == "99.9"
    assert percent(0.0001) == "<0.1"
    assert percent(0.931) == "93.1"


@pytest.mark.parametrize("priority", list(TriagePriority))
def test_a_series_description_fits_and_never_says_low(priority: TriagePriority) -> None:
    text = series_description(priority, "measurements")
    assert len(text) <= 64
    assert "LOW" not in text
    assert ("HIGH" in text) == (priority is TriagePriority.HIGH)
    assert text.endswith("(research)")
