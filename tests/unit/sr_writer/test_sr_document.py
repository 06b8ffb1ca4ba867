"""The quick way to a structured report is highdicom's own way, byte for byte."""

from pathlib import Path
from typing import Any

import pytest
from highdicom.sr import ComprehensiveSR, EnhancedSR
from pydicom.dataset import Dataset
from pydicom.uid import ComprehensiveSRStorage

from config.settings import Settings
from ledger.records import StudyFindings
from sr_writer import document
from sr_writer.build import build_objects
from sr_writer.sr_document import sr_document
from tests.support.dx import make_dx
from tests.support.findings import analysed, finding, flagged_study, keep, new_store, not_assessed, study


def contents(findings: StudyFindings, store: Any) -> list[bytes]:
    return [made.content for made in build_objects(findings, store, Settings(), "2.25.7", "generic-pacs")]


def by_highdicom(sop_class_uid: str, **arguments: Any) -> Dataset:
    make = ComprehensiveSR if sop_class_uid == ComprehensiveSRStorage else EnhancedSR
    made: Dataset = make(**arguments)
    return made


@pytest.mark.parametrize("kind", ["flagged", "two findings", "not assessed"])
def test_documents_are_byte_for_byte_what_highdicom_makes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    store = new_store(tmp_path)
    found = {
        "flagged": lambda: flagged_study(store),
        "two findings": lambda: study(
            (keep(make_dx(), store), [analysed(finding(), finding("fracture", probability=0.7))])
        ),
        "not assessed": lambda: study((keep(make_dx(), store), [not_assessed()])),
    }[kind]()
    ours = contents(found, store)
    monkeypatch.setattr(document, "sr_document", by_highdicom)
    assert ours == contents(found, store)


def test_a_tree_that_refers_to_what_is_no_evidence_is_refused() -> None:
    seen, image, root = Dataset(), Dataset(), Dataset()
    seen.SOPInstanceUID, seen.StudyInstanceUID = "2.25.1", "2.25.2"
    image.ValueType, image.ReferencedSOPSequence = "IMAGE", [Dataset()]
    image.ReferencedSOPSequence[0].ReferencedSOPInstanceUID = "2.25.9"
    root.ValueType, root.ContentSequence = "CONTAINER", [image]
    names = {"series_instance_uid": "2.25.3", "series_number": 1, "sop_instance_uid": "2.25.4", "instance_number": 1}
    with pytest.raises(ValueError, match="no evidence"):
        sr_document(ComprehensiveSRStorage, evidence=[seen], content=root, manufacturer="x", **names)
