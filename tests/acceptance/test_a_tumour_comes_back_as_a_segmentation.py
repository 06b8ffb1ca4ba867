"""MR slices go in one by one; a mask in the place of its slices, a volume and a sentence come back, and no alarm."""

from io import BytesIO
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import pytest
from pydicom import dcmread

from tests.support.chests import bright, save
from tests.support.mr import head, make_mr, save_series
from tests.support.packages import write_package
from tests.support.running import StoreScp, storescu
from tests.support.slice_packages import write_slice_package
from tests.support.waiting import wait_until

MARKED = (False, True, True, True, False)


@pytest.fixture
def models_dir(tmp_path: Path) -> Path:
    """The tiny chest package and a tiny slice package beside it."""
    write_package(tmp_path / "models")
    write_slice_package(tmp_path / "models")
    return tmp_path / "models"


@pytest.mark.timeout(600)
def test_a_head_by_itself_and_a_head_beside_a_chest(start_node: Any, tmp_path: Path) -> None:
    alone = make_mr([head(marked) for marked in MARKED])
    chest = bright()
    same = {name: chest[name].value for name in ("PatientID", "PatientName", "PatientBirthDate", "StudyInstanceUID")}
    beside = make_mr([head(marked) for marked in MARKED], **same)  # a study that names two patients would be held
    with StoreScp(tmp_path / "pacs") as pacs:
        node = start_node(("PACS", pacs.port), complete_after_s=15.0)
        files = [*save_series(alone, tmp_path / "a"), *save_series(beside, tmp_path / "b"), save(chest, tmp_path / "c")]
        sent = storescu(node.port, *files)
        assert sent.returncode == 0, sent.stderr
        wait_until(lambda: sum(dcmread(p).Modality == "SEG" for p in pacs.files()) >= 2, 150)
        node.wait_idle(150)
        got = {path: dcmread(path) for path in pacs.files()}
    of_head = {ds.Modality: path for path, ds in got.items() if ds.StudyInstanceUID == alone[0].StudyInstanceUID}
    descriptions = [ds.SeriesDescription for ds in got.values() if ds.StudyInstanceUID == alone[0].StudyInstanceUID]
    assert sorted(descriptions) == [
        "AI result: measurements (research)",
        "AI result: tumour marked (research)",
        "AI result: tumour segmentation (research)",
    ]
    seg = hd.seg.segread(BytesIO(of_head["SEG"].read_bytes()))
    back = seg.get_pixels_by_source_instance([ds.SOPInstanceUID for ds in alone[1:4]], combine_segments=False)[..., 0]
    truth = np.stack([head(True) > 200] * 3)
    assert np.logical_and(back, truth).sum() / np.logical_or(back, truth).sum() > 0.9
    of_both = {ds.Modality for ds in got.values() if ds.StudyInstanceUID == chest.StudyInstanceUID}
    assert {"SR", "SEG", "OT"} <= of_both
    entries = {entry.study_instance_uid: entry for entry in node.ledger.worklist()}
    assert entries[alone[0].StudyInstanceUID].priority == "LOW"
    assert entries[alone[0].StudyInstanceUID].slices_marked == (("tumour", 3, 5),)
    assert entries[chest.StudyInstanceUID].priority == "HIGH"
    assert entries[chest.StudyInstanceUID].findings[0].label == "pneumonia"
    assert "tumour marked in 3 of 5 slices, no alarm" in node.get("/").text
