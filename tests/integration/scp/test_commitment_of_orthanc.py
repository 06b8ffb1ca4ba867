"""Orthanc as a sender of its own kind: it stores here, asks whether we keep it, and is answered where it listens."""

import io
from pathlib import Path
from typing import Any

import httpx
import pydicom
import pytest

from config.settings import CommitmentRequestor
from tests.support.committer import telling
from tests.support.encoded import CT, data_set, element
from tests.support.orthanc import AE_TITLE, Orthanc
from tests.support.peers import free_port
from tests.support.receiving import StartReceiving
from tests.support.waiting import wait_until

UID = "1.2.3.4"
MISSING = "1.2.3.99"


@pytest.fixture
def engine() -> str:
    return "native"


def instance(folder: Path) -> Path:
    """A file with the tiny CT image of the other tests."""
    data = data_set(tail=element(0x7FE00010, "OW", bytes(64)))
    image = pydicom.filereader.read_dataset(io.BytesIO(data), is_implicit_VR=False, is_little_endian=True)
    image.file_meta = pydicom.dataset.FileMetaDataset()
    image.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    image.save_as(folder / "image.dcm", enforce_file_format=True)
    return folder / "image.dcm"


def test_orthanc_hears_what_is_kept_and_what_is_not(start: StartReceiving, tmp_path: Path) -> None:
    port = free_port()
    with Orthanc(tmp_path / "orthanc", modalities=[("OPENTRIAGE", port)]) as orthanc:
        sender = CommitmentRequestor(ae_title=AE_TITLE, host="127.0.0.1", port=orthanc.port, retention_days=1)
        node = start(port=port, requestors=[sender], commitment_patience_s=0)
        orthanc.put(instance(tmp_path))

        def asks(what: str, body: Any) -> Any:
            answer = httpx.post(f"{orthanc.url}/modalities/OPENTRIAGE/{what}", json=body, timeout=30)
            answer.raise_for_status()
            return answer.json()

        def answered(*listed: str) -> dict[str, Any]:
            instances = [{"SOPClassUID": CT, "SOPInstanceUID": uid} for uid in listed]
            path = asks("storage-commitment", {"DicomInstances": instances})["Path"]
            wait_until(lambda: orthanc.get(path)["Status"] != "Pending", 30)
            said: dict[str, Any] = orthanc.get(path)
            return said

        with telling(node.ledger, node.settings):
            asks("store", {"Resources": [one["ID"] for one in orthanc.find("Instance")]})
            kept, partly = answered(UID), answered(UID, MISSING)
    assert (kept["Status"], [one["SOPInstanceUID"] for one in kept["Success"]]) == ("Success", [UID])
    assert partly["Status"] == "Failure"
    assert [one["SOPInstanceUID"] for one in partly["Failures"]] == [MISSING]
