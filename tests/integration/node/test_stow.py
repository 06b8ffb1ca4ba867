"""DICOMweb STOW-RS (PS3.18 10.5): what is named as stored is durable and in the ledger, as by C-STORE, and what is not
is named with its reason."""

import io
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydicom import dcmread
from pydicom.dataset import FileMetaDataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_file_meta_info
from pydicom.uid import ExplicitVRLittleEndian, JPEGLosslessSV1, generate_uid
from structlog.testing import capture_logs

from ledger import removal
from ledger.access import Role
from ledger.audit import AuditKind
from ledger.database import transaction
from ledger.store import Store
from ledger.trail import Asked
from node.web.stow import Stow
from node.web.stow_parts import FileMeta, NotPart10, read_meta
from tests.support.chests import bright, save
from tests.support.iocm import rejection_note
from tests.support.serving import Served, serving, settings_in

BOUNDARY = "of-a-study"
CONTENT_TYPE = f'multipart/related; type="application/dicom"; boundary={BOUNDARY}'
FAILED, REFERENCED, OTHERS = "00081198", "00081199", "0008119A"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(settings_in(tmp_path_factory.mktemp("stow"))) as made:
        yield made


def chest(folder: Path, **overrides: Any) -> bytes:
    return save(bright(SOPInstanceUID=generate_uid(), **overrides), folder).read_bytes()


def body(*files: bytes, kind: str = "application/dicom") -> bytes:
    parts = [f"--{BOUNDARY}\r\nContent-Type: {kind}\r\n\r\n".encode() + content + b"\r\n" for content in files]
    return b"".join(parts) + f"--{BOUNDARY}--\r\n".encode()


def store(
    served: Served, content: Any, path: str = "/studies", role: Role = Role.OPERATE, **headers: str
) -> httpx.Response:
    with served.client(role) as client:
        return client.post(path, content=content, headers={"Content-Type": CONTENT_TYPE, **headers})


def uids(answer: httpx.Response, sequence: str) -> list[str]:
    return [item["00081155"]["Value"][0] for item in answer.json().get(sequence, {"Value": []})["Value"]]


def reasons(answer: httpx.Response, sequence: str) -> list[int]:
    return [item["00081197"]["Value"][0] for item in answer.json()[sequence]["Value"]]


def meta_of(content: bytes) -> FileMeta:
    meta = read_meta(content)
    assert meta is not None
    return meta


def nothing_left(served: Served) -> bool:
    return not os.listdir(served.settings.node.state_dir / "store" / "parts")


def test_a_study_is_stored_with_its_bytes_and_queued_for_analysis(served: Served, tmp_path: Path) -> None:
    study = generate_uid()
    files = [chest(tmp_path, StudyInstanceUID=study) for _ in range(3)]
    answer = store(served, body(*files))
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/dicom+json")
    assert uids(answer, REFERENCED) == [meta_of(content).sop_instance_uid for content in files]
    assert FAILED not in answer.json()
    kept = served.ledger.study_instances(study)
    by_uid = {meta_of(content).sop_instance_uid: content[meta_of(content).size :] for content in files}
    assert len(kept) == 3
    for item in kept:
        stored = served.ledger.store.read(item.instance.path)
        assert stored[meta_of(stored).size :] == by_uid[item.instance.sop_instance_uid], "its data set was changed"
    assert served.ledger.worklist()[0].pending == 3
    receipts = served.ledger.audit_log(Asked(study_uid=study, kind=AuditKind.TRANSFERRED))
    assert len(receipts) == 3
    assert receipts[0].actor == "ae:STOW:operate-0"
    assert nothing_left(served)


def test_sent_again_it_is_stored_once(served: Served, tmp_path: Path) -> None:
    study = generate_uid()
    content = chest(tmp_path, StudyInstanceUID=study)
    assert [store(served, body(content)).status_code for _ in range(2)] == [200, 200]
    assert len(served.ledger.study_instances(study)) == 1


def unread(monkeypatch: pytest.MonkeyPatch, served: Served) -> None:
    """As the kernel holds it (test_confinement.py): this role opens no stored image."""
    folder, real = str(served.ledger.store.path("instances")), io.open

    def refused(file: Any, *given: Any, **named: Any) -> Any:
        if str(file).startswith(folder):
            raise PermissionError(13, "Permission denied", str(file))
        return real(file, *given, **named)

    monkeypatch.setattr(io, "open", refused)
    monkeypatch.setattr("builtins.open", refused)


def test_sent_again_it_heals_what_was_damaged_and_nobody_looks_at_what_is_stored(
    served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = generate_uid()
    content = chest(tmp_path, StudyInstanceUID=study)
    assert store(served, body(content)).status_code == 200
    [item] = served.ledger.study_instances(study)
    path = served.ledger.store.path(item.instance.path)
    whole = path.read_bytes()
    for damaged in (whole, whole[:-9], bytes(len(whole)), None):
        path.unlink() if damaged is None else path.write_bytes(damaged)
        with monkeypatch.context() as patched, capture_logs() as logs:
            unread(patched, served)
            assert store(served, body(content)).status_code == 200
        assert path.read_bytes() == whole
        assert [line for line in logs if line["log_level"] != "info"] == []
    assert len(list(path.parent.parent.rglob(f"{path.name.partition('-')[0]}*"))) == 1
    assert nothing_left(served)


def test_the_same_bytes_in_another_coding_do_not_take_the_place_of_the_first(served: Served, tmp_path: Path) -> None:
    study = generate_uid()
    content = chest(tmp_path, StudyInstanceUID=study)
    assert store(served, body(content)).status_code == 200
    [item] = served.ledger.study_instances(study)
    path = served.ledger.store.path(item.instance.path)
    before = (path.read_bytes(), path.stat().st_ino)
    ds = dcmread(io.BytesIO(content))
    meta, other = meta_of(content), FileMetaDataset()
    for element in ds.file_meta:
        other.add(element)
    other.TransferSyntaxUID = JPEGLosslessSV1
    head = DicomBytesIO()
    write_file_meta_info(head, other)
    assert store(served, body(bytes(128) + b"DICM" + head.getvalue() + content[meta.size :])).status_code == 200
    assert (path.read_bytes(), path.stat().st_ino) == before


def forgotten(served: Served, study: str) -> None:
    served.ledger.forget(study, "user:test", {}, despite=True)


def outdated(served: Served, study: str) -> None:
    """As retention takes a study's images."""
    with transaction(served.ledger._engine, write=True) as connection:
        removal.take_images(connection, study)
    removal.finish_all(served.ledger._engine, served.ledger.store)


@pytest.mark.parametrize("taken", [forgotten, outdated])
def test_sent_again_while_it_is_removed_it_does_not_come_back_as_a_file_that_nobody_removes(
    served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, taken: Callable[[Served, str], None]
) -> None:
    study, replace = generate_uid(), Store.replace
    content = chest(tmp_path, StudyInstanceUID=study)
    assert store(served, body(content)).status_code == 200
    [item] = served.ledger.study_instances(study)
    path = served.ledger.store.path(item.instance.path)

    def late(*given: Any) -> None:
        taken(served, study)
        assert not path.exists()
        replace(*given)

    with monkeypatch.context() as patched:
        patched.setattr(Store, "replace", late)
        store(served, body(content))
    assert list(path.parent.parent.rglob(f"{path.name.partition('-')[0]}*")) == []
    assert store(served, body(content)).status_code == 200
    assert len(list(path.parent.parent.rglob(f"{path.name.partition('-')[0]}*"))) == 1


def test_a_key_object_rejects_what_it_names_and_is_read_before_it_is_stored(
    served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = "2.25.4711"
    content = chest(tmp_path, StudyInstanceUID=study)
    image = dcmread(io.BytesIO(content))
    assert store(served, body(content)).status_code == 200
    note = save(rejection_note(study, "113001", [image.SOPInstanceUID]), tmp_path)
    with monkeypatch.context() as patched:
        unread(patched, served)
        assert store(served, body(note.read_bytes())).status_code == 200
    assert "instances_rejected" in [event.name for event in served.ledger.events(study)]


def test_some_stored_and_some_not_is_said_one_by_one(served: Served, tmp_path: Path) -> None:
    good = chest(tmp_path)
    cut = chest(tmp_path)[:-700]
    answer = store(served, body(good, cut, b"no DICOM file", b""))
    assert answer.status_code == 202
    assert uids(answer, REFERENCED) == [meta_of(good).sop_instance_uid]
    assert uids(answer, FAILED) == [meta_of(cut).sop_instance_uid]
    assert reasons(answer, FAILED) == [0xC000]
    assert reasons(answer, OTHERS) == [0xC000, 0xC000]
    assert nothing_left(served)


def test_an_instance_of_another_study_than_the_address_names_is_not_stored(served: Served, tmp_path: Path) -> None:
    study, other = generate_uid(), generate_uid()
    right, wrong = chest(tmp_path, StudyInstanceUID=study), chest(tmp_path, StudyInstanceUID=other)
    answer = store(served, body(right, wrong), f"/studies/{study}")
    assert answer.status_code == 202
    assert (uids(answer, FAILED), reasons(answer, FAILED)) == ([meta_of(wrong).sop_instance_uid], [0xA900])
    assert not served.ledger.study_instances(other)
    assert store(served, body(wrong), f"/studies/{study}").status_code == 409


def test_a_class_or_syntax_that_no_association_gets_is_not_taken_either(served: Served, tmp_path: Path) -> None:
    content = chest(tmp_path)
    unknown = content.replace(b"1.2.840.10008.5.1.4.1.1.1.1\0", b"1.2.840.10008.5.1.4.1.1.9.9\0")
    syntax = content.replace(ExplicitVRLittleEndian.encode() + b"\0", b"1.2.840.10008.1.2.9\0", 1)
    assert (unknown != content, syntax != content) == (True, True)
    answer = store(served, body(unknown, syntax))
    assert answer.status_code == 409
    assert reasons(answer, FAILED) == [0x0122, 0xC122]


def test_a_header_that_is_not_the_data_sets_is_a_mismatch(served: Served, tmp_path: Path) -> None:
    content = chest(tmp_path)
    uid = meta_of(content).sop_instance_uid.encode()
    lying = content.replace(uid, uid[:-1] + (b"1" if uid[-1:] != b"1" else b"2"), 1)
    answer = store(served, body(lying))
    assert (answer.status_code, reasons(answer, FAILED)) == (409, [0xA900])


@pytest.mark.parametrize(
    ("content_type", "accept", "content", "status"),
    [
        ("application/dicom", "*/*", b"", 415),
        ('multipart/related; type="application/dicom+json"; boundary=x', "*/*", b"", 415),
        ('multipart/related; type="application/dicom"', "*/*", b"", 400),
        (CONTENT_TYPE, "application/dicom+xml", b"", 406),
        (CONTENT_TYPE, "*/*", b"", 400),
        (CONTENT_TYPE, "*/*", b"no multipart", 400),
        (CONTENT_TYPE, "*/*", f"--{BOUNDARY}--\r\n".encode(), 400),
    ],
)
def test_a_request_that_is_none_is_a_problem(
    served: Served, content_type: str, accept: str, content: bytes, status: int
) -> None:
    answer = store(served, content, **{"Content-Type": content_type, "Accept": accept})
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json"), answer.text


def test_a_part_of_another_media_type_is_named_as_not_understood(served: Served, tmp_path: Path) -> None:
    answer = store(served, body(chest(tmp_path), kind="image/png"))
    assert (answer.status_code, reasons(answer, OTHERS)) == (409, [0xC000])


def test_a_sender_that_hangs_up_has_stored_what_came_whole_and_nothing_else(
    served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study, over, end = generate_uid(), threading.Event(), Stow._end

    def ended(*given: Any) -> None:
        end(*given)
        over.set()

    monkeypatch.setattr(Stow, "_end", ended)
    content = body(*(chest(tmp_path, StudyInstanceUID=study) for _ in range(6)))

    def most_of_it() -> Iterator[bytes]:
        yield content[: len(content) - 10_000]
        raise ConnectionError

    with pytest.raises(ConnectionError):
        store(served, most_of_it())
    assert over.wait(60)
    assert nothing_left(served)
    assert 1 <= len(served.ledger.study_instances(study)) <= 5


def test_a_full_disk_is_503_and_nothing_counts_as_stored(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    full = settings.model_copy(update={"receive": settings.receive.model_copy(update={"free_disk_min_bytes": 1 << 60})})
    with serving(full) as served:
        answer = store(served, body(chest(tmp_path)))
        assert (answer.status_code, reasons(answer, FAILED)) == (503, [0xA700])
        assert int(answer.headers["retry-after"]) > 0
        assert REFERENCED not in answer.json()


def test_a_body_that_comes_in_small_pieces_is_stored_all_the_same(served: Served, tmp_path: Path) -> None:
    first = chest(tmp_path)
    uid = meta_of(first).sop_instance_uid.encode()
    files = [first.replace(uid, uid[:-2] + f"{n:02}".encode()) for n in range(10, 30)]
    answer = store(served, (body(*files)[at : at + 1000] for at in range(0, len(body(*files)), 1000)))
    assert answer.status_code == 200
    assert len(uids(answer, REFERENCED)) == 20


@pytest.mark.parametrize("cut", [0, 131, 132, 140, 200])
def test_a_header_is_waited_for_until_it_is_there(cut: int, tmp_path: Path) -> None:
    content = chest(tmp_path)
    assert read_meta(content[:cut]) is None
    assert meta_of(content).transfer_syntax_uid == ExplicitVRLittleEndian


@pytest.mark.parametrize("broken", [b"x" * 200, b"\0" * 128 + b"DICM" + b"\x02\x00\x01\x00OB\0\0\xff\xff\xff\x7f" * 2])
def test_what_has_no_header_is_not_waited_for(broken: bytes) -> None:
    with pytest.raises(NotPart10):
        read_meta(broken)
