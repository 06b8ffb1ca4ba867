"""A report that follows another says so in words, where somebody has that one too."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from pydicom.dataset import Dataset

from config.settings import Settings
from ledger.records import EarlierReport, ReportKind, SentReference, StudyFindings, TriagePriority
from ledger.store import Store
from sr_writer.build import build_objects
from tests.support.dx import make_dx
from tests.support.findings import flagged_study, new_store
from tests.support.reports import dataset
from tests.unit.sr_writer.test_result_objects import values

HIGH, MEDIUM, LOW = TriagePriority.HIGH, TriagePriority.MEDIUM, TriagePriority.LOW
FINAL, PROVISIONAL, WITHDRAWN = ReportKind.FINAL, ReportKind.PROVISIONAL, ReportKind.WITHDRAWN
AT = datetime(2026, 11, 20, 2, 57, 1, tzinfo=UTC)
BEFORE = (SentReference("text_sr", "1.2.840.10008.5.1.4.1.1.88.22", "2.25.13", "2.25.14", ("pacs",), report_id=1),)
REJECTED = "Images that the earlier report rests on were rejected."


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return new_store(tmp_path_factory.mktemp("results"))


def following(
    store: Store, priority: TriagePriority = HIGH, kind: ReportKind = FINAL, cause: str = ""
) -> StudyFindings:
    findings = flagged_study(store, make_dx(TimezoneOffsetFromUTC="-0200"))
    return replace(findings, predecessors=BEFORE, follows=EarlierReport(kind, priority, AT), cause=cause, revision=1)


def built(findings: StudyFindings, store: Store, destinations: tuple[str, ...] = ("pacs",)) -> dict[str, Dataset]:
    made = build_objects(findings, store, Settings(), "2.25.7", "generic-pacs", destinations)
    return {one.kind: dataset(one) for one in reversed(made)}


def impressions(ds: Dataset) -> list[str]:
    return values(ds, "121073")[1:-1]


def test_it_names_what_it_replaces_by_its_time_there_and_says_why_and_not_to_use_it(store: Store) -> None:
    made = built(following(store, MEDIUM, cause=REJECTED), store)
    said = [
        "Replaces the AI report of 2026-11-20 00:57 (MEDIUM).",  # on the source's clock, as the report's own times are
        "Why: Images that the earlier report rests on were rejected.",
        "Do not use the earlier AI result.",
    ]
    assert impressions(made["text_sr"])[:3] == said
    assert values(made["measurement_sr"], "121106")[1:4] == said  # behind the comment of its group


@pytest.mark.parametrize(
    ("priority", "said"), [(LOW, "no flagged finding"), (TriagePriority.NOT_ASSESSED, "not assessed")]
)
def test_what_was_not_raised_is_not_called_by_a_priority(store: Store, priority: TriagePriority, said: str) -> None:
    lines = impressions(built(following(store, priority), store)["text_sr"])
    assert lines[:2] == [
        f"Replaces the AI report of 2026-11-20 00:57 ({said}).",
        "Why: more of the study was looked at.",
    ]


def test_a_final_report_follows_its_provisional_one_unless_the_priority_changed(store: Store) -> None:
    lines = impressions(built(following(store, HIGH, PROVISIONAL), store)["text_sr"])
    assert lines[0] == "Follows the provisional AI report of 2026-11-20 00:57 (HIGH)."
    assert not any("not use" in line for line in lines)
    changed = impressions(built(following(store, MEDIUM, PROVISIONAL), store)["text_sr"])
    assert changed[0].startswith("Replaces")


def test_a_final_report_that_repeats_its_provisional_one_says_that_nothing_changed(store: Store) -> None:
    confirming = replace(following(store, HIGH, PROVISIONAL), confirms=True)
    made = built(confirming, store)
    assert {made[kind].CompletionFlag for kind in ("text_sr", "measurement_sr")} == {"COMPLETE"}
    assert impressions(made["text_sr"])[:2] == [
        "Follows the provisional AI report of 2026-11-20 00:57 (HIGH).",
        "Nothing changed.",
    ]


def test_after_a_withdrawal_it_says_so(store: Store) -> None:
    lines = impressions(built(following(store, TriagePriority.NOT_ASSESSED, WITHDRAWN), store)["text_sr"])
    assert lines[0] == "Follows the AI result that was withdrawn on 2026-11-20 00:57."


def test_who_has_no_earlier_report_hears_of_none(store: Store) -> None:
    made = built(following(store), store, ("another",))
    assert not any("AI report of" in line for line in impressions(made["text_sr"]))
    assert made["text_sr"].SeriesDescription == "AI TRIAGE HIGH: report (research)"


def test_a_series_list_tells_it_from_the_earlier_one(store: Store) -> None:
    made = built(following(store), store)
    assert {kind: ds.SeriesDescription for kind, ds in made.items()} == {
        "measurement_sr": "AI TRIAGE HIGH: 2nd measurements (research)",
        "text_sr": "AI TRIAGE HIGH: 2nd report (research)",
        "secondary_capture": "AI TRIAGE HIGH: 2nd picture (research)",
        "key_objects": "AI TRIAGE HIGH: 2nd key images (research)",
    }


@pytest.mark.parametrize(("revision", "number"), [(2, "3rd"), (3, "4th"), (10, "11th"), (12, "13th"), (20, "21st")])
def test_it_is_numbered_as_people_count(store: Store, revision: int, number: str) -> None:
    made = built(replace(following(store), revision=revision), store)
    assert made["text_sr"].SeriesDescription == f"AI TRIAGE HIGH: {number} report (research)"
