"""A radiologist's PACS finds the results beside the study they belong to."""

from pathlib import Path
from typing import Any

from tests.support.chests import bright, save
from tests.support.orthanc import AE_TITLE, Orthanc
from tests.support.running import storescu
from tests.support.waiting import wait_until


def test_orthanc_files_the_results_under_the_study_of_the_image(start_node: Any, tmp_path: Path) -> None:
    image = bright(PatientName="Grün^Zoë", AccessionNumber="A77")
    path = save(image, tmp_path / "in")
    with Orthanc(tmp_path / "orthanc") as orthanc:
        storescu(orthanc.port, path, called=AE_TITLE)
        node = start_node((AE_TITLE, orthanc.port))
        assert storescu(node.port, path).returncode == 0
        node.wait_idle(180)
        (study,) = wait_until(lambda: orthanc.find("Study", StudyInstanceUID=image.StudyInstanceUID), 60)
        series = orthanc.find("Series", StudyInstanceUID=image.StudyInstanceUID)
        (patient,) = orthanc.find("Patient", PatientID=image.PatientID)
    assert study["MainDicomTags"]["AccessionNumber"] == "A77"
    assert study["PatientMainDicomTags"]["PatientName"] == "Grün^Zoë"
    assert len(patient["Studies"]) == 1
    modalities = sorted(one["MainDicomTags"]["Modality"] for one in series)
    assert modalities.count("SR") == 4  # provisional and final
    assert "DX" in modalities
    assert "KO" in modalities
    assert len(modalities) == 7
