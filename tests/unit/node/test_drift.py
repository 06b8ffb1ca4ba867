"""Drift is said where a week differs from those before by more than chance and enough to matter, and nowhere else."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest

from config.drift import DriftSettings
from ledger.drift import SaidOfStudy
from ledger.records import ImageResult, TriagePriority
from node.watching.drift import Found, Kind, Line, State, Subject, alarms
from node.watching.spread import Difference, chi2_tail, effective, of_histograms, of_shares
from node.watching.weeks import LINES_MAX, SENDERS_MAX, Span, found_in
from tests.support.records import judged, not_applicable, refused

SETTINGS = DriftSettings()
NOW = datetime(2026, 11, 21, tzinfo=UTC)
CHEST = "chest-pneumonia/1.0.0"


def said(probability: float) -> ImageResult:
    return judged(TriagePriority.HIGH if probability >= 0.5 else TriagePriority.LOW, probability)


def study(*results: ImageResult, sender: str = "CT1", patient: str = "") -> SaidOfStudy:
    return SaidOfStudy(NOW, patient, tuple((sender, one) for one in results))


def found(recent: Sequence[SaidOfStudy], before: Sequence[SaidOfStudy], settings: DriftSettings = SETTINGS) -> Found:
    spans = Span(settings.recent_days), Span(settings.reference_days)
    for span, studies in zip(spans, (recent, before), strict=True):
        for one in studies:
            span.add(one)
    return found_in(*spans, settings, NOW)


def line(result: Found, kind: Kind, name: str, whose: str = CHEST) -> Line:
    [one] = [one for one in result.lines if (one.subject.kind, one.subject.name) == (kind, name)
             and whose in (one.subject.model, one.subject.sender)]  # fmt: skip
    return one


def scored(rng: np.random.Generator, count: int, shift: float = 0.0) -> list[SaidOfStudy]:
    ill = rng.random(count) < 0.15
    logit = np.where(ill, rng.normal(1.5, 1.5, count), rng.normal(-3, 1.2, count)) + shift
    return [study(said(float(one))) for one in 1 / (1 + np.exp(-logit))]


def test_answers_that_move_are_said_and_answers_that_do_not_are_not() -> None:
    rng = np.random.default_rng(1)
    before = scored(rng, 1200)
    steady, moved = found(scored(rng, 300), before), found(scored(rng, 300, shift=1.5), before)
    assert steady.drifting == []
    assert steady.compared == 2
    assert line(steady, Kind.PROBABILITY, "pneumonia").state is State.STEADY
    assert line(moved, Kind.PROBABILITY, "pneumonia").state is State.DRIFTS
    assert line(moved, Kind.FLAGGED, "pneumonia").state is State.DRIFTS


def test_without_drift_hardly_any_look_says_so() -> None:
    """A thousand looks at two spans that are alike: the settings allow two, and five would be chance in 1 of 20."""
    rng = np.random.default_rng(2)
    cells = np.array([0.3, 0.2, 0.15, 0.1, 0.05, 0.05, 0.05, 0.04, 0.03, 0.03])
    wrong = 0
    for _ in range(1000):
        now, before = rng.multinomial(120, cells), rng.multinomial(480, cells)
        difference = of_histograms(now.tolist(), before.tolist(), 120, 480)
        wrong += difference.size >= SETTINGS.psi and difference.p < SETTINGS.false_alarms
    assert wrong <= 5


@pytest.mark.parametrize(("recent", "before"), [(99, 1000), (150, 199)])
def test_with_too_few_studies_nothing_is_compared_and_nothing_alarmed(recent: int, before: int) -> None:
    result = found([study(said(0.95))] * recent, [study(said(0.02))] * before)
    assert {one.state for one in result.lines} == {State.NOT_ENOUGH}
    assert result.compared == 0
    assert alarms(result) == []


def test_another_version_of_a_model_is_another_model() -> None:
    new = said(0.95)
    assert new.model is not None
    new = replace(new, model=replace(new.model, version="1.1.0"))
    result = found([study(new)] * 300, [study(said(0.02))] * 1200)
    assert line(result, Kind.PROBABILITY, "pneumonia", "chest-pneumonia/1.1.0").state is State.NOT_ENOUGH
    assert CHEST not in {one.subject.model for one in result.lines}
    assert result.drifting == []


def test_images_that_are_refused_more_often_are_said_by_model_and_by_the_sender_they_come_from() -> None:
    before = [study(said(0.1), sender=f"CT{n % 2}") for n in range(1600)]
    recent = [study(refused() if n % 5 == 0 else said(0.1), sender=f"CT{n % 2 if n % 5 else 1}") for n in range(400)]
    result = found(recent, before)
    drifting = {(one.subject.model, one.subject.sender, one.subject.name) for one in result.drifting}
    assert drifting == {(CHEST, "", "age_unknown"), ("", "CT1", "age_unknown")}
    [sentence] = [one for one in alarms(result) if "CT1" in one]
    assert "age_unknown" in sentence
    assert "docs/runbooks/drift.md" in sentence


def test_a_sender_whose_images_no_model_is_meant_for_any_more_is_said() -> None:
    result = found([study(not_applicable())] * 200, [study(said(0.1))] * 800)
    assert line(result, Kind.REASON, "modality", "CT1").state is State.DRIFTS


def test_a_change_that_is_certain_and_small_is_not_said() -> None:
    """Of 20 000 studies chance would explain nothing of it."""
    spans = Span(SETTINGS.recent_days), Span(SETTINGS.reference_days)
    for span, refused_of, studies in zip(spans, (2_000, 10_000), (20_000, 80_000), strict=True):
        group = span.of(("", "CT1"))
        group.studies, group.patients[""] = studies, studies
        group.events[Subject(Kind.REASON, "", "CT1", "age_unknown")] = refused_of
    one = line(found_in(*spans, SETTINGS, NOW), Kind.REASON, "age_unknown", "CT1")
    assert one.p < 1e-9
    assert one.state is State.STEADY


def test_a_study_of_many_images_counts_once_as_its_most_probable_image() -> None:
    many = study(*(said(0.02 + n / 1000) for n in range(300)), said(0.9))
    result = found([many] * 100, [many] * 200)
    one = line(result, Kind.PROBABILITY, "pneumonia")
    assert (one.recent, sum(one.bins_now), one.bins_now[7]) == (100, 100, 100)
    assert line(result, Kind.FLAGGED, "pneumonia").now == 1.0


def test_an_inpatient_with_a_study_each_day_is_not_so_many_witnesses() -> None:
    """Seventeen patients, seven studies each: nothing that holds of patients."""

    def week(ill: int, patients: int) -> list[SaidOfStudy]:
        return [study(said(0.95 if n < ill else 0.02), patient=f"p{n}") for n in range(patients) for _ in range(7)]

    apart = [replace(one, patient="") for one in week(6, 17)]
    before = [study(said(0.95 if n % 8 == 0 else 0.02)) for n in range(476)]
    assert found(apart, before).drifting
    assert not found(week(6, 17), before).drifting


def test_an_identity_that_everybody_shares_is_no_patient() -> None:
    assert effective([1000], days=7) == 1000
    assert effective([7, 7, 1, 1], days=7) == pytest.approx(256 / 100)


def test_the_tail_is_that_of_chi_squared() -> None:
    """Against tables (Abramowitz and Stegun 26.8)."""
    for value, df, p in [(3.841, 1, 0.05), (5.991, 2, 0.05), (16.919, 9, 0.05), (27.877, 9, 0.001), (13.816, 2, 0.001)]:
        assert chi2_tail(value, df) == pytest.approx(p, rel=2e-3)
    assert chi2_tail(0.0, 5) == 1.0


def test_bins_that_hardly_any_study_is_in_say_nothing_by_themselves() -> None:
    assert of_histograms([99, 1, 0, 0], [398, 0, 2, 0], 100, 400) == Difference(0.0, 1.0)
    apart, together = ([95, 2, 2, 1], [395, 2, 2, 1]), ([95, 5], [395, 5])
    assert of_histograms(*apart, 100, 400).size == of_histograms(*together, 100, 400).size == 0.0
    shown = of_histograms([80, 20, 0, 0], [380, 10, 5, 5], 100, 400)
    assert shown == of_histograms([80, 20], [380, 20], 100, 400)
    assert shown.size > 0.2


def test_a_share_that_is_seen_too_seldom_is_not_compared() -> None:
    assert of_shares((4, 196), (5, 800), 200, 805) is None
    difference = of_shares((20, 180), (5, 800), 200, 805)
    assert difference is not None
    assert difference.p < 1e-6


def test_what_is_compared_together_shares_the_probability_of_a_false_alarm() -> None:
    recent = [study(refused() if n < 12 else said(0.1)) for n in range(200)]
    before = [study(refused() if n < 10 else said(0.1)) for n in range(800)]
    alone = line(found(recent, before), Kind.REASON, "age_unknown")
    crowd = [study(said(0.1), *(refused(f"r{i}") for i in range(60) if n % 2)) for n in range(200)]
    settings = DriftSettings(false_alarms=alone.p * 50, share=0.05)
    assert line(found(recent, before, settings), Kind.REASON, "age_unknown").state is State.DRIFTS
    together = found([*recent, *crowd], [*before, *crowd, *crowd, *crowd, *crowd], settings)
    assert together.compared > 100
    assert line(together, Kind.REASON, "age_unknown").state is State.STEADY


def test_nobody_can_invent_lines_without_end() -> None:
    settings = DriftSettings(studies_min=20)
    for reasons, senders, lines in ((10, SENDERS_MAX, SENDERS_MAX * 10), (30, 10, LINES_MAX)):
        results = [refused(f"r{i}") for i in range(reasons)]
        recent = [study(*results, sender=f"S{n % 40}") for n in range(800)]
        result = found(recent, [*recent, *recent], settings)
        of_senders = [one for one in result.lines if one.subject.sender]
        assert (len({one.subject.sender for one in of_senders}), len(of_senders)) == (senders, lines)


def test_a_reference_that_is_no_longer_than_the_recent_days_is_refused() -> None:
    with pytest.raises(ValueError, match="twice"):
        DriftSettings(recent_days=14, reference_days=21)


def test_health_says_the_first_few_and_how_many_more_there_are() -> None:
    before = [study(said(0.1))] * 800
    recent = [study(*(refused(f"reason_{i}") for i in range(5)))] * 200
    sentences = alarms(found(recent, before))
    assert len(sentences) == 4
    assert "more, see the page of models or `opentriage drift`" in sentences[-1]
    assert alarms(None) == []
