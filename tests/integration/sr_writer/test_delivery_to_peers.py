"""Results reach real archives and are found there again, unchanged."""

import hashlib
import json
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.uid import ImplicitVRLittleEndian

from config.settings import DeliverSettings, Destination, Settings
from ledger.delivery_records import DeliveryOutcome, DeliveryState
from ledger.records import ResultObject, StoredObject, TriagePriority
from ledger.store import Store
from sr_writer.build import build_objects
from sr_writer.deliver import Sender, data_set_bytes
from sr_writer.errors import Unreachable
from tests.support.findings import flagged_study, new_store
from tests.support.peers import free_port, need
from tests.support.storescp import storescp
from tests.support.waiting import wait_until


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return new_store(tmp_path)


@pytest.fixture
def made(store: Store) -> list[ResultObject]:
    return build_objects(flagged_study(store), store, Settings(), "2.25.7", "generic-pacs")


def _keep(made: list[ResultObject], store: Store) -> list[StoredObject]:
    kept = []
    for i, item in enumerate(made, start=1):
        digest = hashlib.sha256(item.content).hexdigest()
        path = store.put("objects", digest, ".dcm", item.content)
        names = (item.kind, item.sop_class_uid, item.sop_instance_uid, item.transfer_syntax_uid)
        kept.append(StoredObject(i, *names, digest, path, TriagePriority.HIGH))
    return kept


def _deliver(destination: Destination, made: list[ResultObject], store: Store) -> list[DeliveryOutcome]:
    """Try until somebody listens."""
    outcomes: list[DeliveryOutcome] = []

    def once() -> bool:
        try:
            Sender(destination, DeliverSettings()).send(_keep(made, store), store, outcomes.append)
        except Unreachable:
            return False
        return True

    assert wait_until(once, within_s=60.0, every_s=0.2)
    return outcomes


@contextmanager
def dcmtk(folder: Path, *options: str) -> Iterator[Destination]:
    """DCMTK's storescp, told to write the bytes as they come."""
    with storescp(folder, "+B", *options) as port:
        yield Destination(ae_title="PACS", host="127.0.0.1", port=port)


def _received(folder: Path) -> dict[str, bytes]:
    return {path.name.split(".", 1)[1]: path.read_bytes() for path in folder.iterdir()}


def test_dcmtk_receives_the_very_bytes(made: list[ResultObject], store: Store, tmp_path: Path) -> None:
    with dcmtk(tmp_path / "received") as destination:
        outcomes = _deliver(destination, made, store)
    assert [o.state for o in outcomes] == [DeliveryState.DELIVERED] * len(made)
    received = _received(tmp_path / "received")
    assert len(received) == len(made) == 6  # three forms of the measurement report, text, picture, key objects
    for item in made:
        content = received[item.sop_instance_uid]
        sent = data_set_bytes(item.content, hashlib.sha256(item.content).hexdigest())
        assert data_set_bytes(content, hashlib.sha256(content).hexdigest()) == sent


def test_an_archive_that_speaks_implicit_vr_alone_gets_every_result(
    made: list[ResultObject], store: Store, tmp_path: Path
) -> None:
    with dcmtk(tmp_path / "received", "+xi") as destination:
        outcomes = _deliver(destination, made, store)
    assert [o.state for o in outcomes] == [DeliveryState.DELIVERED] * len(made)
    assert {outcome.context.rpartition(", ")[2] for outcome in outcomes} == {"Implicit VR Little Endian"}
    for uid, content in _received(tmp_path / "received").items():
        got = dcmread(BytesIO(content))
        assert got.file_meta.TransferSyntaxUID == ImplicitVRLittleEndian
        [kept] = [dcmread(BytesIO(one.content)) for one in made if one.sop_instance_uid == uid]
        assert {e.tag: e.value for e in got} == {e.tag: e.value for e in kept}


@pytest.fixture
def orthanc(tmp_path: Path) -> Iterator[tuple[Destination, str]]:
    """Orthanc on free loopback ports: the destination and the address of its REST API."""
    program = need("Orthanc")
    dicom, http = free_port(), free_port()
    settings = {
        "Name": "test",
        "StorageDirectory": str(tmp_path / "orthanc"),
        "IndexDirectory": str(tmp_path / "orthanc"),
        "DicomAet": "ORTHANC",
        "DicomPort": dicom,
        "HttpPort": http,
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "Plugins": [],
    }
    config = tmp_path / "orthanc.json"
    config.write_text(json.dumps(settings))
    process = subprocess.Popen([str(program), str(config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield Destination(ae_title="ORTHANC", host="127.0.0.1", port=dicom), f"http://127.0.0.1:{http}"
    finally:
        process.terminate()
        process.wait(20)


def _get(address: str, data: bytes | None = None) -> bytes:
    with urllib.request.urlopen(urllib.request.Request(address, data=data), timeout=10) as answer:
        content: bytes = answer.read()
        return content


def test_orthanc_finds_the_results_again(
    orthanc: tuple[Destination, str], made: list[ResultObject], store: Store
) -> None:
    destination, address = orthanc
    outcomes = _deliver(destination, made, store)
    assert [o.state for o in outcomes] == [DeliveryState.DELIVERED] * len(made)
    again = _deliver(destination, made, store)
    assert {o.state for o in again} == {DeliveryState.DELIVERED}
    for item in made:
        (name,) = json.loads(_get(f"{address}/tools/lookup", item.sop_instance_uid.encode()))
        found = dcmread(BytesIO(_get(f"{address}/instances/{name['ID']}/file")))
        sent = dcmread(BytesIO(item.content))
        assert found == sent
        if item.kind == "secondary_capture":
            assert found.PixelData == sent.PixelData
    study = _study(address)
    assert study["MainDicomTags"]["AccessionNumber"] == "A1"
    assert len(study["Series"]) == len(made)


def _study(address: str) -> dict[str, Any]:
    (study,) = json.loads(_get(f"{address}/studies"))
    content: dict[str, Any] = json.loads(_get(f"{address}/studies/{study}"))
    return content
