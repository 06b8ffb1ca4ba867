"""The images of an alarm are named Of Interest; no document we make may ask an archive to hide them."""

from dataclasses import replace
from pathlib import Path

import pytest
from highdicom.sr import CodedConcept
from pydicom.dataset import Dataset
from pydicom.uid import KeyObjectSelectionDocumentStorage

from config.settings import Settings
from ledger.records import StudyFindings, TriagePriority
from ledger.store import Store
from sr_writer import key_objects as module
from sr_writer.build import build_objects
from sr_writer.errors import NothingToSay
from sr_writer.key_objects import REJECTIONS, document, key_objects
from sr_writer.profiles import PROFILES
from tests.support.dx import make_dx
from tests.support.findings import analysed, finding, flagged_study, keep, new_store, study
from tests.support.reports import dataset, report_of

HIGH, MEDIUM = TriagePriority.HIGH, TriagePriority.MEDIUM


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return new_store(tmp_path)


def two_images(store: Store) -> StudyFindings:
    """A mild one that comes first, and a bad one."""
    mild, bad = make_dx(), make_dx()
    bad.StudyInstanceUID = mild.StudyInstanceUID
    return study(
        (keep(mild, store), [analysed(finding(probability=0.6), priority=MEDIUM)]), (keep(bad, store), [analysed()])
    )


def images(ds: Dataset) -> list[str]:
    found = [item for item in ds.ContentSequence if item.ValueType == "IMAGE"]
    return [str(item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID) for item in found]


def test_an_alarm_names_the_image_that_raised_it(store: Store) -> None:
    findings = two_images(store)
    ds = dataset(key_objects(report_of(findings, store)))
    bad = findings.looked_at[1].instance
    assert (ds.SOPClassUID, ds.Modality) == (KeyObjectSelectionDocumentStorage, "KO")
    title = ds.ConceptNameCodeSequence[0]
    assert (title.CodeValue, title.CodingSchemeDesignator) == ("113000", "DCM")
    assert images(ds) == [bad.sop_instance_uid]
    assert ds.SeriesDescription == "AI TRIAGE HIGH: key images (research)"
    (text,) = [item for item in ds.ContentSequence if item.ValueType == "TEXT" and "TextValue" in item][-1:]
    assert text.ConceptNameCodeSequence[0].CodeValue == "113012"
    assert text.TextValue.startswith("AI triage: priority HIGH, Pneumonia 93.1 % ± 3.0 %. ")
    assert "research use only" in text.TextValue


def test_the_selected_images_are_evidence_and_of_the_sources_own_class(store: Store) -> None:
    findings = flagged_study(store)
    ds = dataset(key_objects(report_of(findings, store)))
    source = findings.looked_at[0].instance
    (series,) = ds.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence
    assert series.SeriesInstanceUID == source.series_instance_uid
    assert series.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == source.sop_instance_uid
    (image,) = [item for item in ds.ContentSequence if item.ValueType == "IMAGE"]
    assert image.ReferencedSOPSequence[0].ReferencedSOPClassUID == source.sop_class_uid
    assert "ConceptNameCodeSequence" not in image


@pytest.mark.parametrize("title", sorted(REJECTIONS))
def test_a_title_that_hides_images_is_refused_whoever_asks(title: str, store: Store) -> None:
    findings = flagged_study(store)
    report = report_of(findings, store)
    with pytest.raises(ValueError, match="never sent"):
        document(report, CodedConcept(title, "DCM", "Rejected"), [report.header_of], "text")


def test_the_four_titles_that_archives_act_on_are_all_banned() -> None:
    assert set(REJECTIONS) == {"113001", "113037", "113038", "113039"}


def test_no_module_of_the_writer_knows_another_title_than_of_interest() -> None:
    """Neither by its code nor by its keyword: nobody can slip one in unseen."""
    folder = Path(str(module.__file__)).parent
    for path in folder.rglob("*.py"):
        text = path.read_text()
        found = {code for code in REJECTIONS if code in text}
        assert not found or path.name == "key_objects.py", path
        assert "RejectedFor" not in text
        assert "DataRetentionPolicyExpired" not in text


def test_no_object_of_any_report_has_such_a_title(store: Store) -> None:
    for findings in (flagged_study(store), two_images(store)):
        for profile in PROFILES:
            for made in build_objects(findings, store, Settings(), "2.25.7", profile):
                name = dataset(made).get("ConceptNameCodeSequence")
                assert not name or name[0].CodeValue not in REJECTIONS


def test_without_an_alarm_there_are_no_key_images(store: Store) -> None:
    mild = study((keep(make_dx(), store), [analysed(finding(probability=0.6), priority=MEDIUM)]))
    with pytest.raises(NothingToSay):
        key_objects(report_of(mild, store))
    with pytest.raises(NothingToSay):
        key_objects(report_of(replace(flagged_study(store), priority=TriagePriority.LOW), store))
