"""The other forms of a report are encoded by their head alone: byte for byte what encoding them whole would give."""

from io import BytesIO
from pathlib import Path

import pytest
from pydicom import dcmread

from config.settings import Settings
from sr_writer import document
from sr_writer.build import build_objects
from tests.support.dx import make_dx
from tests.support.findings import flagged_study, new_store


@pytest.mark.parametrize("profile", ["generic-pacs", "air"])
def test_a_spliced_tree_is_the_encoded_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, profile: str) -> None:
    store = new_store(tmp_path)
    findings = flagged_study(store, make_dx(PatientName="Yamada^Tarou=山田^太郎", SpecificCharacterSet="ISO_IR 192"))
    spliced = build_objects(findings, store, Settings(), "2.25.7", profile)  # type: ignore[arg-type]
    monkeypatch.setattr(document, "_without_tree", lambda ds, content, kind: (ds, b""))
    whole = build_objects(findings, store, Settings(), "2.25.7", profile)  # type: ignore[arg-type]
    assert [item.content for item in spliced] == [item.content for item in whole]
    for item in spliced:
        assert dcmread(BytesIO(item.content)).SOPInstanceUID == item.sop_instance_uid


def test_a_document_with_something_after_its_tree_is_encoded_whole(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    made = build_objects(flagged_study(store), store, Settings(), "2.25.7", "generic-pacs")
    ds = dcmread(BytesIO(made[0].content))
    ds.add_new(0x00990010, "LO", "AFTER")
    content = document.finished(ds, "measurement_sr").content
    kept, tree = document._without_tree(ds, content, "measurement_sr")
    assert "ContentSequence" in kept
    assert tree == b""
