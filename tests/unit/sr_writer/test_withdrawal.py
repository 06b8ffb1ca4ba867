"""A withdrawn report says what it takes back and why, names what came before, and raises nothing."""

import re
from dataclasses import replace

import pytest
from pydicom.dataset import Dataset

from config.settings import ProfileName, Settings
from ledger.records import (
    ImageResult,
    InstanceResults,
    ReportKind,
    ResultObject,
    ResultStatus,
    SentReference,
    StudyFindings,
    TriagePriority,
)
from ledger.store import Store
from sr_writer.build import build_objects
from tests.support.findings import flagged_study, new_store
from tests.support.reports import dataset
from tests.unit.sr_writer.test_result_objects import all_text, items, values

COMPREHENSIVE, ENHANCED = "1.2.840.10008.5.1.4.1.1.88.33", "1.2.840.10008.5.1.4.1.1.88.22"
MEASUREMENTS = (
    SentReference("measurement_sr", COMPREHENSIVE, "2.25.11", "2.25.12"),
    SentReference("measurement_sr", ENHANCED, "2.25.21", "2.25.22"),
)
REST = (
    SentReference("text_sr", ENHANCED, "2.25.13", "2.25.14"),
    SentReference("secondary_capture", "1.2.840.10008.5.1.4.1.1.7", "2.25.15", "2.25.16"),
)
WHY = "Model chest-pneumonia 1.0.0 was recalled."


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return new_store(tmp_path_factory.mktemp("results"))


def withdrawal(
    store: Store, before: tuple[SentReference, ...] = (*MEASUREMENTS, *REST), reason: str = WHY
) -> StudyFindings:
    return replace(
        flagged_study(store),
        kind=ReportKind.WITHDRAWN,
        priority=TriagePriority.NOT_ASSESSED,
        predecessors=before,
        cause=reason,
    )


def build(findings: StudyFindings, store: Store, profile: ProfileName = "generic-pacs") -> list[ResultObject]:
    return build_objects(findings, store, Settings(), "2.25.7", profile)


def of_kind(made: list[ResultObject], kind: str) -> list[Dataset]:
    return [dataset(one) for one in made if one.kind == kind]


def before(ds: Dataset) -> set[str]:
    return {
        str(sop.ReferencedSOPInstanceUID)
        for item in ds.get("PredecessorDocumentsSequence", ())
        for series in item.ReferencedSeriesSequence
        for sop in series.ReferencedSOPSequence
    }


def test_a_reader_sees_that_it_is_withdrawn_why_and_not_to_use_it(store: Store) -> None:
    (ds,) = of_kind(build(withdrawal(store), store), "text_sr")
    impressions = values(ds, "121073")
    assert impressions[:3] == [
        "AI RESULT WITHDRAWN",
        "Do not use the earlier AI result.",
        "Why: Model chest-pneumonia 1.0.0 was recalled.",
    ]
    assert "Withdrawn: the earlier picture." in values(ds, "121071")
    assert ds.SeriesDescription == "AI result: withdrawn (research)"
    assert ds.CompletionFlag == "COMPLETE"


def test_every_report_that_still_stands_is_taken_back(store: Store) -> None:
    first = replace(REST[0], report_id=1)
    second = SentReference("text_sr", ENHANCED, "2.25.31", "2.25.32", report_id=2)
    [ds] = of_kind(build(withdrawal(store, (first, REST[1], second)), store), "text_sr")
    assert before(ds) == {"2.25.13", "2.25.31"}
    assert values(ds, "121071") == [
        "Withdrawn: the earlier text report of 2 AI reports.",
        "Withdrawn: the earlier picture.",
    ]


def test_every_earlier_report_of_the_kind_is_named(store: Store) -> None:
    made = build(withdrawal(store), store)
    assert {one.kind for one in made} == {"measurement_sr", "text_sr"}
    for ds in of_kind(made, "measurement_sr"):
        assert before(ds) == {"2.25.11", "2.25.21"}
        assert ds.SeriesDescription == "AI result: withdrawn (research)"
    for ds in of_kind(made, "text_sr"):
        assert before(ds) == {"2.25.13"}


def test_a_destination_gets_one_class_of_each(store: Store) -> None:
    made = build(withdrawal(store), store)
    measurements = [one for one in made if one.kind == "measurement_sr"]
    assert measurements[0].sop_class_uid == COMPREHENSIVE
    assert {one.choice for one in measurements} == {"measurement_sr"}
    assert [one.preference for one in measurements] == list(range(len(measurements)))
    assert len({one.sop_instance_uid for one in made} | {one.series_instance_uid for one in made}) == 2 * len(made)


@pytest.mark.parametrize("profile", ["ohif", "triage-only"])
def test_where_measurements_have_no_place_the_text_names_the_earlier_ones(profile: ProfileName, store: Store) -> None:
    """A viewer that shows boxes only would open an empty screen."""
    (one,) = build(withdrawal(store), store, profile)
    assert one.kind == "text_sr"
    assert before(dataset(one)) == {"2.25.11", "2.25.21", "2.25.13"}


def test_without_an_earlier_measurement_report_there_is_none_to_withdraw(store: Store) -> None:
    assert [one.kind for one in build(withdrawal(store, REST), store)] == ["text_sr"]


def test_no_finding_and_no_priority_is_stated(store: Store) -> None:
    """The findings of the withdrawn report are at hand, and HIGH: none of it is repeated."""
    for made in build(withdrawal(store), store):
        ds = dataset(made)
        said = " ".join(all_text(ds))
        assert not re.search(r"pneumonia(?! 1\.0\.0 was recalled)|HIGH|PRIORITY|%", said, re.IGNORECASE), said
        assert not [item for item in items(ds) if item.ValueType == "NUM"]
        assert not [item for item in items(ds) if item.ConceptNameCodeSequence[0].CodeValue == "260870009"]


def test_not_even_a_flagged_study_raises_its_withdrawal(store: Store) -> None:
    for made in build(replace(withdrawal(store), priority=TriagePriority.HIGH), store):
        assert dataset(made).SeriesDescription == "AI result: withdrawn (research)"


def test_machines_read_it_as_a_code(store: Store) -> None:
    for ds in of_kind(build(withdrawal(store), store), "measurement_sr"):
        codes = {item.ConceptCodeSequence[0].CodeValue for item in items(ds) if item.ValueType == "CODE"}
        assert "WITHDRAWN" in codes


def test_the_measurement_report_has_a_frame_to_show(store: Store) -> None:
    """A viewer that draws coordinates and nothing else would stay black without any."""
    (ds, *_) = of_kind(build(withdrawal(store), store), "measurement_sr")
    (region,) = [item for item in items(ds) if item.ValueType == "SCOORD"]
    assert max(region.GraphicData) == 255.0
    assert "Do not use the earlier AI result." in values(ds, "121106")


def test_a_reason_that_no_reader_may_see_is_not_shown(store: Store) -> None:
    (ds,) = of_kind(build(withdrawal(store, reason="All were normal, priority LOW"), store), "text_sr")
    assert "Why: the reason is in the node's own log." in values(ds, "121073")
    assert not any(re.search(r"\bnormal|\bLOW\b", text) for text in all_text(ds))


def test_two_withdrawals_of_one_study_never_share_a_name(store: Store) -> None:
    """The same images and model may be reported, withdrawn, reported and withdrawn again."""
    first = withdrawal(store)
    again = replace(
        first, predecessors=tuple(replace(one, sop_instance_uid=one.sop_instance_uid + "9") for one in REST)
    )
    names = [{one.sop_instance_uid for one in build(findings, store)} for findings in (first, again)]
    assert not names[0] & names[1]
    assert [one.content for one in build(first, store)] == [one.content for one in build(first, store)]


def test_it_leaves_even_when_no_model_is_meant_for_the_images_any_more(store: Store) -> None:
    nobody = ImageResult(ResultStatus.NOT_APPLICABLE, "No model is installed.", "no_model", None)
    found = withdrawal(store)
    found = replace(found, looked_at=tuple(InstanceResults(item.instance, (nobody,)) for item in found.looked_at))
    assert {one.kind for one in build(found, store)} == {"measurement_sr", "text_sr"}
