"""What left is put right: a corrected patient makes a new report that names the old one, a recall withdraws it."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset, dcmread

from tests.support.chests import bright, save
from tests.support.realdata import ROOT
from tests.support.running import RunningNode, StoreScp, storescu
from tests.support.waiting import wait_until


def reports(pacs: StoreScp) -> list[Dataset]:
    """The structured reports that the PACS holds, oldest first by the content time they carry."""
    found = [ds for ds in map(dcmread, pacs.files()) if ds.Modality == "SR"]
    return sorted(found, key=lambda ds: (ds.ContentDate, ds.ContentTime))


def predecessors(ds: Dataset) -> set[str]:
    return {
        str(instance.ReferencedSOPInstanceUID)
        for study in ds.get("PredecessorDocumentsSequence", ())
        for series in study.ReferencedSeriesSequence
        for instance in series.ReferencedSOPSequence
    }


def words(ds: Dataset) -> str:
    own = " ".join(str(ds.get(keyword, "")) for keyword in ("TextValue", "SeriesDescription"))
    return " ".join([own, *(words(item) for item in ds.get("ContentSequence", ()))])


def command(node: RunningNode, *arguments: str) -> "subprocess.CompletedProcess[str]":
    program = [sys.executable, "-m", "node.cli", *arguments, "-c", str(node.config)]
    return subprocess.run(program, capture_output=True, text=True, timeout=120, check=False, cwd=ROOT)


@pytest.mark.timeout(600)
def test_a_corrected_patient_and_a_recall_reach_the_pacs(start_node: Any, tmp_path: Path) -> None:
    image = bright()
    with StoreScp(tmp_path / "pacs") as pacs:
        node = start_node(("PACS", pacs.port))
        assert storescu(node.port, save(image, tmp_path / "first")).returncode == 0
        wait_until(lambda: len(reports(pacs)) >= 1, 120)
        node.wait_idle(150)
        first = {str(ds.SOPInstanceUID) for ds in reports(pacs)}
        image.PatientID, image.PatientName = "CORRECTED-0002", "Corrected^Person"
        assert storescu(node.port, save(image, tmp_path / "second")).returncode == 0
        wait_until(lambda: len(reports(pacs)) > len(first), 120)
        node.wait_idle(150)
        revised = [ds for ds in reports(pacs) if str(ds.SOPInstanceUID) not in first]
        assert {ds.PatientID for ds in revised} == {"CORRECTED-0002"}
        assert {str(ds.PatientName) for ds in revised} == {"Corrected^Person"}
        assert all(predecessors(ds) & first for ds in revised)
        assert {ds.StudyInstanceUID for ds in revised} == {image.StudyInstanceUID}

        done = command(node, "recall", "--study", str(image.StudyInstanceUID), "--reason", "A test said so.", "--yes")
        assert done.returncode == 0, done.stderr
        second = first | {str(ds.SOPInstanceUID) for ds in revised}
        wait_until(lambda: len(reports(pacs)) > len(second), 120)
        node.wait_idle(150)
        withdrawn = [ds for ds in reports(pacs) if str(ds.SOPInstanceUID) not in second]
        assert all(predecessors(ds) & second for ds in withdrawn)
        assert {ds.PatientID for ds in withdrawn} == {"CORRECTED-0002"}
        assert any("withdrawn" in words(ds).lower() for ds in withdrawn)
        assert any("A test said so." in words(ds) for ds in withdrawn)
        entry = node.entry(str(image.StudyInstanceUID))
        assert entry is not None
        assert (entry.report_kind, entry.hold) == ("withdrawn", "")
        assert "opentriage_instances_drift 0.0" in node.get("/metrics").text
        log = node.log.read_text()
        assert "CORRECTED-0002" not in log
        assert "Corrected^Person" not in log
        assert node.stop() == 0
