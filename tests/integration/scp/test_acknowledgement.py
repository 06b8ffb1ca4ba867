"""0x0000 means durable and in the ledger; everything else means nothing was kept, or says what was."""

import os
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import pydicom
import pytest
from prometheus_client import generate_latest
from pydicom.filereader import _read_file_meta_info, read_preamble
from structlog.testing import capture_logs

from ledger.errors import LedgerUnavailable
from ledger.store import PartFile, Store
from scp.network import command_set
from tests.support.encoded import CT, SC, TEXT_SR, data_set, element
from tests.support.peers import need
from tests.support.rawscu import EXPLICIT_LITTLE, RawScu, Rejected, Response, p_data
from tests.support.realdata import need_data
from tests.support.receiving import Receiving, StartReceiving
from tests.support.waiting import wait_until

UID = "1.2.3.4"
CONTEXT = [(CT, (EXPLICIT_LITTLE,))]


def send(node: Receiving, data: bytes, uid: str = UID, sop_class: str = CT) -> Response:
    with RawScu(node.address, [(sop_class, (EXPLICIT_LITTLE,))]) as scu:
        return scu.store(sop_class, uid, data)


def big(**changes: str | None) -> bytes:
    return data_set(tail=element(0x7FE00010, "OW", bytes(4096)), **changes)


def test_the_answer_comes_after_file_name_folder_and_ledger_in_that_order(
    node: Receiving, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []

    def recorded(name: str, real: Callable[..., object]) -> Callable[..., object]:
        def call(*arguments: object) -> object:
            result = real(*arguments)
            steps.append(name)
            return result

        return call

    monkeypatch.setattr("ledger.store.os.fdatasync", recorded("sync file", os.fdatasync))
    monkeypatch.setattr("ledger.store.os.rename", recorded("rename", os.rename))
    monkeypatch.setattr(node.store, "sync_folder", recorded("sync folder", node.store.sync_folder))
    monkeypatch.setattr(node.ledger, "admit", recorded("ledger", node.ledger.admit))
    monkeypatch.setattr("scp.network.command_set.store_response", recorded("answer", command_set.store_response))
    assert send(node, big()).status == 0
    new_shard = ["sync folder"]  # its folder is made, and durable, before a file is named in it
    assert steps == [*new_shard, "rename", "sync file", "sync folder", "ledger", "answer"]


# --- the same again ---


def test_a_resend_is_success_without_a_second_file_or_job(node: Receiving) -> None:
    data = big()
    assert send(node, data).status == 0
    before = node.ledger.counts()
    (file,) = node.files()
    written = file.stat()
    for _ in range(3):
        assert send(node, data).status == 0
    assert node.ledger.counts() == before
    assert node.files() == [file]
    assert file.stat().st_ino == written.st_ino
    assert node.parts() == []


def test_a_resend_restores_a_file_that_was_lost(node: Receiving) -> None:
    data = big()
    send(node, data)
    node.files()[0].unlink()
    assert send(node, data).status == 0
    ref = node.find(UID, data)
    assert ref is not None
    assert node.store.read(ref.path).endswith(data)
    assert len(node.files()) == 1


def test_a_resend_puts_a_damaged_file_right(node: Receiving) -> None:
    data = big()
    send(node, data)
    [file] = node.files()
    whole = file.read_bytes()
    file.chmod(0o600)
    file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))  # a bit fell over
    with capture_logs() as logs:
        assert send(node, data).status == 0
    assert [entry["sop_instance_uid"] for entry in logs if entry["event"] == "stored_file_restored"] == [UID]
    assert [path.read_bytes() for path in node.files()] == [whole]


def test_other_bytes_under_the_same_uid_are_kept_beside_the_first(node: Receiving) -> None:
    first, second = big(), big(Manufacturer="Corrected")
    with capture_logs() as logs:
        assert send(node, first).status == send(node, second).status == 0
    (warned,) = [entry for entry in logs if entry["event"] == "uid_conflict"]
    assert (warned["log_level"], warned["sop_instance_uid"]) == ("warning", UID)
    assert node.find(UID, first)
    assert node.find(UID, second)
    assert len(node.files()) == 2
    assert "uid_conflict" in [event.name for event in node.ledger.events("1.2.3.1")]


def test_the_same_bytes_sent_at_once_by_many_are_one_instance(node: Receiving) -> None:
    data = big()
    barrier, statuses = threading.Barrier(6), []

    def sender() -> None:
        with RawScu(node.address, CONTEXT) as scu:
            barrier.wait(20)
            statuses.append(scu.store(CT, UID, data).status)

    threads = [threading.Thread(target=sender) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert statuses == [0] * 6
    assert sum(node.dispositions.values()) == 1
    assert len(node.files()) == 1


# --- the status table, on the wire ---


@pytest.mark.parametrize(
    ("announced", "data", "status", "offending"),
    [
        ((CT, UID), big()[:-10], 0xC000, 0x7FE00010),
        ((CT, UID), big() + b"\0", 0xC000, None),
        ((CT, UID), big(SOPInstanceUID="1.2.3.5"), 0xA900, 0x00080018),
        ((CT, UID), big(SOPInstanceUID=None), 0xA900, 0x00080018),
        ((CT, UID), big(SOPClassUID=SC), 0xA900, 0x00080016),
        ((CT, UID), big(StudyInstanceUID=None), 0xA900, 0x0020000D),
        ((CT, UID), big(SeriesInstanceUID=""), 0xA900, 0x0020000E),
        ((CT, UID), big(StudyInstanceUID="1.2.x"), 0x0117, 0x0020000D),
        ((CT, UID), b"", 0xA900, 0x00080016),
        ((CT, "x/../../../etc"), big(), 0x0117, None),
        ((CT, "1..2"), big(), 0x0117, None),
        ((CT, "1." * 40 + "1"), big(), 0x0117, None),
        ((CT, ""), big(), 0x0117, None),
        ((SC, UID), big(SOPClassUID=SC), 0x0122, None),
    ],
    ids=[
        "truncated", "trailing", "uid", "no-uid", "class", "no-study", "empty-series", "bad-study", "empty",
        "traversal", "empty-component", "long-uid", "empty-uid", "not-the-context",
    ],
)  # fmt: skip
def test_a_refusal_says_what_is_wrong_and_keeps_nothing(
    node: Receiving, announced: tuple[str, str], data: bytes, status: int, offending: int | None
) -> None:
    with RawScu(node.address, CONTEXT) as scu:
        response = scu.store(*announced, data)
        assert response.status == status
        assert response.comment
        if offending is not None:
            assert response.offending_element == offending
        assert scu.store(CT, "1.2.9", big(SOPInstanceUID="1.2.9")).status == 0  # the association goes on
    assert len(node.files()) == 1
    assert node.parts() == []


def test_broken_bytes_go_to_quarantine_and_to_nobody_else(node: Receiving) -> None:
    data = big(Manufacturer="Doe^Jane")[:-10]
    with capture_logs() as logs:
        response = send(node, data)
    assert response.status == 0xC000
    assert "Doe" not in response.comment
    (kept,) = node.quarantined()
    assert kept.read_bytes().endswith(data)
    assert kept.stat().st_mode & 0o777 == 0o600
    assert node.files() == []
    said = {line["event"]: (line["calling_ae_title"], line["peer"]) for line in logs if line["log_level"] == "warning"}
    assert said == dict.fromkeys(("data_set_quarantined", "instance_refused"), ("TESTSCU", "127.0.0.1"))


class Volume(Store):
    """With as much room as it is told to have."""

    free = 0

    def free_bytes(self) -> int:
        return self.free


def test_a_full_disk_is_out_of_resources_and_passes(start: StartReceiving, tmp_path: Path) -> None:
    volume = Volume(tmp_path / "store")
    node = start(store=volume, free_disk_min_bytes=1000)
    with RawScu(node.address, CONTEXT) as scu:
        response = scu.store(CT, UID, big())
        assert (response.status, node.parts(), node.files()) == (0xA700, [], [])
        volume.free = 2000
        assert scu.store(CT, UID, big()).status == 0


def test_a_disk_that_fills_up_while_an_instance_comes_is_out_of_resources_before_its_end(
    start: StartReceiving, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scp.admission.admitter.FREE_SPACE_CHECK_BYTES", 3000)
    volume = Volume(tmp_path / "store")
    volume.free = 2000
    node = start(store=volume, free_disk_min_bytes=1000)
    data = big()
    with RawScu(node.address, CONTEXT) as scu:
        scu.send_command(CT, UID)
        scu.socket.sendall(p_data(1, 0, data[:2000]))
        wait_until(lambda: [part.stat().st_size > 2000 for part in node.parts()] == [True], within_s=60)
        volume.free = 0
        scu.socket.sendall(p_data(1, 2, data[2000:]))
        assert (scu.read_response().status, node.parts(), node.files()) == (0xA700, [], [])
        volume.free = 2000
        assert scu.store(CT, UID, data).status == 0


def test_a_write_that_fails_is_out_of_resources_and_passes(node: Receiving, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.write

    def full(fd: int, data: bytes) -> int:
        if len(data) > 3000:
            raise OSError(28, "No space left on device")
        return real(fd, data)

    monkeypatch.setattr("ledger.store.os.write", full)
    with RawScu(node.address, CONTEXT) as scu:
        assert scu.store(CT, UID, big()).status == 0xA700
        assert node.parts() == []
        monkeypatch.undo()
        assert scu.store(CT, UID, big()).status == 0


def test_an_instance_longer_than_the_limit_is_out_of_resources(start: StartReceiving) -> None:
    node = start(max_instance_bytes=4000)
    response = send(node, big())
    assert response.status == 0xA700
    assert node.parts() == []


def test_a_ledger_that_is_away_is_out_of_resources(node: Receiving, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: object) -> None:
        raise LedgerUnavailable("away")

    with RawScu(node.address, CONTEXT) as scu:
        with monkeypatch.context() as patch:
            patch.setattr(node.ledger, "admit", away)
            assert scu.store(CT, UID, big()).status == 0xA700
        assert scu.store(CT, UID, big()).status == 0
    assert sum(node.dispositions.values()) == 1


def test_our_own_bug_is_0110_when_nothing_was_stored(node: Receiving, monkeypatch: pytest.MonkeyPatch) -> None:
    def bug(*_: object) -> None:
        raise RuntimeError("Doe^Jane")

    with RawScu(node.address, CONTEXT) as scu:
        monkeypatch.setattr("scp.admission.admitter.walk", bug)
        response = scu.store(CT, UID, big())
        assert (response.status, response.comment) == (0x0110, "internal error, nothing was stored")
        monkeypatch.undo()
        monkeypatch.setattr(node.ledger, "admit", bug)
        assert scu.store(CT, UID, big()).status == 0xA700
    assert node.parts() == []


class FailingStore(Store):
    """Its n-th sync after `arm` fails, and later ones succeed, as a kernel does after dropping the pages."""

    def __init__(self, root: Path) -> None:
        self.left = -1
        super().__init__(root, fsync=self.sync)

    def sync(self, fd: int) -> None:
        if self.left == 0:
            self.left = -1
            raise OSError(5, "Input/output error")
        self.left -= self.left > 0
        os.fsync(fd)


@pytest.mark.parametrize("which", [0, 1], ids=["file", "folder"])
def test_after_a_failed_sync_nothing_is_acknowledged_until_a_restart(
    start: StartReceiving, tmp_path: Path, which: int
) -> None:
    store = FailingStore(tmp_path / "store")
    node = start(store=store)
    known = big(SOPInstanceUID="1.2.9")
    with RawScu(node.address, CONTEXT) as scu, RawScu(node.address, CONTEXT) as resender:
        assert scu.store(CT, "1.2.9", known).status == 0
        scu.send_command(CT, UID)
        resender.send_command(CT, "1.2.9")
        resender.socket.sendall(p_data(1, 0, known[:100]))
        wait_until(lambda: len(node.parts()) == 2, within_s=60)
        store.left = which
        with RawScu(node.address, CONTEXT) as other:
            assert other.store(CT, "1.2.8", big(SOPInstanceUID="1.2.8")).status == 0xA700
        # begun before the failure, a new one, and even a resend
        scu.socket.sendall(p_data(1, 2, big()))
        assert scu.read_response().status == 0xA700
        assert scu.store(CT, "1.2.7", big(SOPInstanceUID="1.2.7")).status == 0xA700
        assert scu.store(CT, "1.2.9", known).status == 0xA700
        resender.socket.sendall(p_data(1, 2, known[100:]))
        assert resender.read_response().status == 0xA700
    with pytest.raises(Rejected) as caught:
        RawScu(node.address, CONTEXT)
    assert caught.value.triple == (2, 3, 1)
    assert node.receiver.failed
    assert sum(node.dispositions.values()) == 1
    node.receiver.stop(0.0)
    again = start()
    assert send(again, big()).status == 0


def test_a_sync_that_fails_beside_ours_spoils_ours_too(node: Receiving, monkeypatch: pytest.MonkeyPatch) -> None:
    real = PartFile.seal

    def seal(self: PartFile, relative: str) -> Path:
        folder = real(self, relative)
        node.store.failed = True  # another association's sync, at the same moment
        return folder

    monkeypatch.setattr(PartFile, "seal", seal)
    assert send(node, big()).status == 0xA700
    assert node.dispositions == {}


def test_no_name_reaches_a_log_or_an_answer(
    node: Receiving, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    sentinel = "Sentinel^Jane"
    named = element(0x00100010, "PN", sentinel)

    def bug(*_: object) -> None:
        raise RuntimeError(sentinel)

    with capture_logs() as logs, RawScu(node.address, CONTEXT) as scu:
        answers = [
            scu.store(CT, UID, data_set(tail=named)),
            scu.store(CT, UID, data_set(tail=named)[:-3]),
            scu.store(CT, UID, data_set(StudyInstanceUID=sentinel)),
            scu.store(CT, UID, data_set(SOPInstanceUID=sentinel)),
            scu.store(CT, sentinel, data_set()),
        ]
        monkeypatch.setattr("scp.admission.admitter.walk", bug)
        answers.append(scu.store(CT, UID, data_set(tail=named)))
    assert [answer.status for answer in answers] == [0, 0xC000, 0x0117, 0xA900, 0x0117, 0x0110]
    assert len([entry for entry in logs if entry["event"] == "instance_refused"]) == 5
    said = repr(logs) + "".join(answer.comment for answer in answers) + "".join(capfd.readouterr())
    assert "Sentinel" not in said
    assert "Sentinel" not in generate_latest().decode()


# --- dispositions ---


@pytest.mark.parametrize(
    ("changes", "disposition"),
    [
        ({}, "analyse"),
        ({"StudyDate": "20200101"}, "prior"),
        ({"StudyDate": "", "StudyTime": None}, "analyse"),
        ({"SOPClassUID": TEXT_SR}, "not_an_image"),
        (
            {"SOPClassUID": TEXT_SR, "Manufacturer": "OpenTriage", "ManufacturerModelName": "OpenTriage node"},
            "own_result",
        ),
        ({"SOPClassUID": SC, "Manufacturer": "OpenTriage", "ManufacturerModelName": "OpenTriage node"}, "own_result"),
    ],
)
def test_what_is_stored_is_marked_with_what_becomes_of_it(
    node: Receiving, changes: dict[str, str | None], disposition: str
) -> None:
    sop_class = changes.get("SOPClassUID") or CT
    assert send(node, big(**changes), sop_class=sop_class).status == 0
    assert node.dispositions == {disposition: 1}
    assert bool(node.ledger.counts()["jobs"]) is (disposition == "analyse")


# --- real files, real senders ---


def test_storescu_sends_every_coding_of_one_ct_and_the_bytes_are_kept(start: StartReceiving, tmp_path: Path) -> None:
    node = start(accept_deflated=True, accept_big_endian=True)
    folder = need_data("dicom/one_ct_in_15_transfer_syntaxes")
    sent = 0
    for path in sorted(folder.rglob("*.dcm")):
        options = _storescu_options(path)
        if options is None:
            continue
        host, port = node.address
        done = subprocess.run(
            [need("storescu"), "-aec", "OPENTRIAGE", *options, host, str(port), path],
            capture_output=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, (path.name, done.stderr)
        sent += 1
    assert sent >= 10
    assert sum(node.dispositions.values()) == len(node.files()) >= 10


def test_every_real_file_is_stored_bit_exact_or_refused(start: StartReceiving) -> None:
    node = start(accept_deflated=True, accept_big_endian=True)
    refused = {}
    for path in sorted(need_data("dicom").rglob("*")):
        if not path.is_file() or "mr_epi_series" in path.parts:
            continue
        with path.open("rb") as file:
            try:
                read_preamble(file, False)
            except pydicom.errors.InvalidDicomError:
                continue
            meta = _read_file_meta_info(file)
            data = file.read()
        sop_class, uid = str(meta.get("MediaStorageSOPClassUID", "")), str(meta.get("MediaStorageSOPInstanceUID", ""))
        syntax = str(meta.get("TransferSyntaxUID", ""))
        with RawScu(node.address, [(sop_class or CT, (syntax or EXPLICIT_LITTLE,))]) as scu:
            if scu.results[1][0] != 0:
                refused[path.name] = "context"
                continue
            status = scu.store(sop_class, uid, data).status
        if status:
            refused[path.name] = f"{status:04X}"
            continue
        ref = node.find(uid, data)
        assert ref is not None, path.name
        assert node.store.read(ref.path).endswith(data)
        assert ref.transfer_syntax_uid == syntax
    assert refused.pop("emri_small_jpeg_2k_lossless_too_short.dcm") == "C000"
    assert set(refused.values()) <= {"context", "A900", "0117"}
    assert len(refused) <= 12, refused
    wait_until(lambda: not node.parts(), within_s=60)


def _storescu_options(path: Path) -> list[str] | None:
    """The proposal that makes DCMTK 3.6 send the file as it is; None when it knows no such coding."""
    with path.open("rb") as file:
        read_preamble(file, False)
        syntax = str(_read_file_meta_info(file).TransferSyntaxUID)
    known = {
        "1.2.840.10008.1.2": "-xi", "1.2.840.10008.1.2.1": "-xe", "1.2.840.10008.1.2.2": "-xb",
        "1.2.840.10008.1.2.1.99": "-xd", "1.2.840.10008.1.2.4.50": "-xy", "1.2.840.10008.1.2.4.51": "-xx",
        "1.2.840.10008.1.2.4.57": None, "1.2.840.10008.1.2.4.70": "-xs", "1.2.840.10008.1.2.4.80": "-xt",
        "1.2.840.10008.1.2.4.81": "-xu", "1.2.840.10008.1.2.4.90": "-xv", "1.2.840.10008.1.2.4.91": "-xw",
        "1.2.840.10008.1.2.5": "-xr",
    }  # fmt: skip
    option = known.get(syntax)
    return [option, "-R"] if option else None
