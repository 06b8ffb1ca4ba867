"""What admission learns of whose an instance is and of what must not be used, over a real socket."""

import sqlite3

import pytest
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from structlog.testing import capture_logs

from tests.support.encoded import CT, data_set, element
from tests.support.iocm import rejection_note
from tests.support.rawscu import EXPLICIT_LITTLE, RawScu, Response
from tests.support.receiving import Receiving

KOS = "1.2.840.10008.5.1.4.1.1.88.59"


def send(node: Receiving, sop_class: str, uid: str, data: bytes) -> Response:
    with RawScu(node.address, [(sop_class, (EXPLICIT_LITTLE,))]) as scu:
        return scu.store(sop_class, uid, data)


def bytes_of(ds: Dataset) -> bytes:
    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, False
    write_dataset(buffer, ds)
    return buffer.getvalue()


def send_note(node: Receiving, note: Dataset) -> Response:
    return send(node, KOS, str(note.SOPInstanceUID), bytes_of(note))


def test_a_study_of_two_patients_is_held_and_neither_is_named_anywhere(node: Receiving) -> None:
    with capture_logs() as logs:
        for uid, name in (("1.2.3.4", "MUSTERMANN^ERIKA"), ("1.2.3.5", "DOE^JOHN")):
            patient = element(0x00100010, "PN", name) + element(0x00100020, "LO", name[:3])
            assert send(node, CT, uid, data_set(SOPInstanceUID=uid, tail=patient)).status == 0
    [entry] = node.ledger.worklist(include_hidden=True)
    assert "different patients" in entry.hold
    with sqlite3.connect(node.settings.node.state_dir / "ledger.sqlite") as database:
        kept = "\n".join(database.iterdump()) + str(logs)
    assert "MUSTERMANN" not in kept
    assert "DOE" not in kept


def test_a_rejection_note_is_known_for_one(node: Receiving) -> None:
    data = data_set(SOPInstanceUID="1.2.3.4")
    assert send(node, CT, "1.2.3.4", data).status == 0
    [entry] = node.ledger.worklist(include_hidden=True)
    assert entry.pending == 1
    assert send_note(node, rejection_note(entry.study_instance_uid, "113037", ["1.2.3.4"])).status == 0
    assert node.dispositions == {"analyse": 1, "rejection_note": 1}
    assert node.ledger.worklist(include_hidden=True)[0].pending == 0


@pytest.mark.filterwarnings("ignore:Invalid value for VR UI")
@pytest.mark.parametrize("rejects", [[], ["not a UID"]])
def test_a_note_that_cannot_be_read_is_kept_and_somebody_is_told(node: Receiving, rejects: list[str]) -> None:
    with capture_logs() as logs:
        assert send_note(node, rejection_note("1.2.3", "113001", rejects)).status == 0
    assert node.dispositions == {"not_an_image": 1}
    assert "rejection_note_unreadable" in [entry["event"] for entry in logs]
