"""A detector that may not raise a priority: its box comes back to PACS at the right place, and nothing is alarmed."""

from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread

from tests.support.chests import save
from tests.support.detectors import write_detector
from tests.support.dicom_files import square
from tests.support.dx import make_dx
from tests.support.running import StoreScp, storescu
from tests.support.waiting import wait_until


@pytest.fixture(scope="module")
def models_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("models")
    write_detector(root)
    return root


@pytest.mark.timeout(600)
def test_a_box_comes_back_where_it_was_drawn(start_node: Any, tmp_path: Path) -> None:
    """A wide hand, letterboxed into 7 x 7 cells: the bright square covers the cell in row 3, column 5."""
    headers = {
        "BodyPartExamined": "HAND",
        "AnatomicRegionSequence": None,
        "ViewCodeSequence": None,
        "StudyDescription": "Hand",
    }
    hand = make_dx(square(256, 512, 85, 360, 85), SeriesDescription="Hand PA", **headers)
    with StoreScp(tmp_path / "pacs") as pacs:
        node = start_node(("PACS", pacs.port), extra='[report]\nlocalization = "box"\n')
        assert storescu(node.port, save(hand, tmp_path / "in")).returncode == 0
        wait_until(lambda: len(pacs.files()) >= 2, 120)
        node.wait_idle(150)
        got = [dcmread(path) for path in pacs.files()]
        (entry,) = node.ledger.worklist()
        page = node.get("/").text
    assert sorted(ds.SeriesNumber for ds in got) == [9901, 9907]  # measurements and text; no picture of an alarm
    assert entry.priority == "LOW"
    assert "fracture" in page
    (scoord,) = [item for ds in got for item in ds.iterall() if item.keyword == "GraphicData" and item.VM == 10][:1]
    column, row, right, _, _, bottom = [float(value) for value in scoord.value][:6]
    assert [row, column, bottom, right] == pytest.approx([91.4, 365.7, 164.6, 438.9], abs=0.1)
    texts = " ".join(str(item.value) for ds in got for item in ds.iterall() if item.keyword == "TextValue")
    assert "MARKED, priority not raised" in texts
    assert "LOW" not in texts
