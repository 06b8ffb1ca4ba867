"""Whose a stored image is, is read by a confined child of the analyse role, and shown by a role that reads no image."""

import io
import os
import signal
import socket
import zlib
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from time import monotonic
from typing import Literal
from unittest import mock

import pytest
from pydicom import dcmread
from pydicom.dataset import FileDataset
from pydicom.filewriter import write_file_meta_info
from pydicom.uid import DeflatedExplicitVRLittleEndian

from config import Settings
from inference.errors import CannotLook
from ledger.completion import Completion
from ledger.ledger import Ledger
from node.looking import header as header_verb
from node.looking import header_child
from node.looking.header import Headers
from node.looking.server import LookServer
from node.looking.wire import HEADERS_MAX, NOT_NOW, NoAnalyser, address, ask
from node.trying.demo import SAMPLES
from node.web import identities
from node.web.identities import Identities
from node.wiring import open_ledger, run_dir
from sr_writer.source import read_header, value_text
from sr_writer.whose import SAID, TEXT_MAX
from tests.support.looking import headers_read, unhurried
from tests.support.records import received


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return Settings.model_validate({"node": {"state_dir": tmp_path_factory.mktemp("headers") / "state"}})


@pytest.fixture(scope="module")
def ledger(settings: Settings) -> Iterator[Ledger]:
    opened = open_ledger(settings)
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def served(settings: Settings, ledger: Ledger) -> Iterator[LookServer]:
    with headers_read(settings) as server:
        yield server


@pytest.fixture(autouse=True)
def _unhurried() -> Iterator[None]:
    with unhurried():
        yield


def sample(**values: object) -> FileDataset:
    ds = dcmread(next(SAMPLES.glob("*.dcm")))
    for keyword, value in values.items():
        setattr(ds, keyword, value)
    return ds


def stored(ledger: Ledger, folder: Path, ds: FileDataset) -> str:
    ds.save_as(folder / "sent.dcm")
    return ledger.store.put("instances", "ab" * 32, ".dcm", (folder / "sent.dcm").read_bytes())


def deflated_header() -> bytes:
    """What stands before a deflated data set."""
    ds, meta = sample(), io.BytesIO()
    ds.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    write_file_meta_info(meta, ds.file_meta)
    return bytes(128) + b"DICM" + meta.getvalue()


def study(ledger: Ledger, uid: str, name: str) -> str:
    """A study of which this image is stored."""
    ledger.admit(received(uid, path=name), Completion(60.0))
    return uid


def asked(settings: Settings, *names: str) -> list[dict[str, str] | Literal[False] | None]:
    said: list[dict[str, str] | Literal[False] | None] = ask(settings, "header", 60, images=list(names)).said["headers"]
    return said


@pytest.mark.usefixtures("served")
@pytest.mark.parametrize(
    ("charset", "name"),
    [("ISO_IR 100", "Zoë^Müller"), ("ISO_IR 192", "Kovačević^Živa"), (r"\ISO 2022 IR 87", "Yamada^Tarou=山田^太郎")],
)
def test_it_says_what_results_would_say(
    settings: Settings, ledger: Ledger, tmp_path: Path, charset: str, name: str
) -> None:
    path = stored(ledger, tmp_path, sample(SpecificCharacterSet=charset.split("\\"), PatientName=name))
    (said,) = asked(settings, path)
    assert said is not None
    inherited = read_header(ledger.store.path(path), "2.25.1").patient_and_study
    assert said == {keyword: value_text(inherited, keyword) for keyword in SAID}
    assert said["PatientName"] == name
    assert said["StudyDate"]


@pytest.mark.usefixtures("served")
def test_a_header_whose_elements_stand_in_another_order_is_read_to_its_end(
    settings: Settings, ledger: Ledger, tmp_path: Path
) -> None:
    ds = sample()
    del ds.PatientID
    path = stored(ledger, tmp_path, ds)
    file = ledger.store.path(path)
    late = b"\x10\x00\x20\x00LO\x06\x00LATE-1"
    content = file.read_bytes()
    place = content.index(b"\x28\x00\x02\x00US")
    file.write_bytes(content[:place] + late + content[place:])
    (said,) = asked(settings, path)
    assert said is not None
    assert said["PatientID"] == "LATE-1"


@pytest.mark.usefixtures("served")
@pytest.mark.filterwarnings("ignore:The value length")
def test_an_answer_is_small_whatever_a_header_says(settings: Settings, ledger: Ledger, tmp_path: Path) -> None:
    path = stored(ledger, tmp_path, sample(AccessionNumber="A" * 60_000, PatientID="B" * 60_000))
    (said,) = asked(settings, path)
    assert said is not None
    assert max(map(len, said.values())) == TEXT_MAX + 1
    assert said["PatientID"].endswith("B…")


@pytest.mark.usefixtures("served")
@pytest.mark.parametrize(
    "name",
    ["/etc/passwd", "instances/../../ledger.sqlite", "instances/ab/../../x", "objects/ab/x.dcm", "", "\0", 5],
)
def test_nothing_but_stored_images_is_read(settings: Settings, ledger: Ledger, name: object, tmp_path: Path) -> None:
    good = stored(ledger, tmp_path, sample())
    assert ask(settings, "header", 60, images=[name, good]).said["headers"][0] is None
    assert asked(settings, good)[0]


@pytest.mark.usefixtures("served")
def test_a_link_out_of_the_store_is_not_followed(settings: Settings, ledger: Ledger, tmp_path: Path) -> None:
    sample().save_as(tmp_path / "elsewhere.dcm")
    folder = ledger.store.path("instances/cd")
    folder.mkdir(exist_ok=True)
    (folder / "link.dcm").symlink_to(tmp_path / "elsewhere.dcm")
    assert asked(settings, "instances/cd/link.dcm") == [None]
    headers = Headers(settings)
    assert headers._read("instances/cd/link.dcm", 60.0) is None
    assert headers._child.starts == 0, "its jail would have refused it; it was not even asked"


@pytest.mark.usefixtures("served")
def test_the_child_that_reads_headers_is_confined_as_one_that_decodes(
    settings: Settings, ledger: Ledger, tmp_path: Path, served: LookServer
) -> None:
    asked(settings, stored(ledger, tmp_path, sample()))
    status = Path(f"/proc/{served._headers._child.pid}/status").read_text()
    assert "NoNewPrivs:\t1" in status
    assert "Seccomp:\t2" in status


@pytest.mark.usefixtures("served")
def test_what_kills_its_reader_is_nobodys_for_now_and_the_rest_is_read(
    settings: Settings, ledger: Ledger, tmp_path: Path
) -> None:
    """A deflated data set of gigabytes."""
    good, bad = stored(ledger, tmp_path, sample()), "instances/ab/bomb.dcm"
    deflated = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    piece = deflated.compress(bytes(1 << 24)) + deflated.flush(zlib.Z_FULL_FLUSH)
    ledger.store.path(bad).parent.mkdir(exist_ok=True)
    ledger.store.path(bad).write_bytes(deflated_header() + piece * 256 + deflated.flush())
    said = asked(settings, good, bad, good)
    assert [bool(one) for one in said] == [True, False, True]
    assert said[1] is NOT_NOW, "a reader that is gone says nothing of the file"


@pytest.mark.usefixtures("served")
def test_a_name_does_not_wait_for_somebodys_pixels(
    settings: Settings, ledger: Ledger, tmp_path: Path, served: LookServer
) -> None:
    name = stored(ledger, tmp_path, sample())
    with served._at_desk:
        assert asked(settings, name)[0]
        with pytest.raises(NoAnalyser):
            ask(settings, "picture", 0.1, path=str(ledger.store.path(name)))


@pytest.mark.usefixtures("served")
def test_no_question_is_longer_than_it_may_be(settings: Settings, ledger: Ledger, tmp_path: Path) -> None:
    name = stored(ledger, tmp_path, sample())
    assert len(asked(settings, *[name] * (HEADERS_MAX + 5))) == HEADERS_MAX
    with pytest.raises(NoAnalyser):
        ask(settings, "header", 5, images=7)
    assert asked(settings, name)[0]


def test_what_was_not_read_in_time_is_not_said_to_be_unreadable(settings: Settings, ledger: Ledger) -> None:
    headers = Headers(settings)
    assert headers.answer({"images": ["instances/ab/x"]}, 0.0).said["headers"] == []
    with headers._lock, pytest.raises(header_verb.Busy):
        headers.answer({"images": []}, 0.0)


# --- the page's side ---


def test_an_identity_is_asked_once_and_again_when_the_file_was_replaced(
    settings: Settings, ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, served: LookServer
) -> None:
    questions: list[list[str]] = []

    def counted(settings: Settings, verb: str, within_s: float, slack_s: float, images: list[str]) -> object:
        questions.append(images)
        return ask(settings, verb, within_s, slack_s, images=images)

    monkeypatch.setattr(identities, "ask", counted)
    name = stored(ledger, tmp_path, sample(PatientName="BEFORE^A"))
    uid = study(ledger, "2.25.501", name)
    asking = Identities(settings, ledger)
    assert [asking.of_study(uid).known[uid].name for _ in range(3)] == ["BEFORE, A"] * 3
    assert questions == [[name]]
    ledger.store.replace(name, stored(ledger, tmp_path, sample(PatientName="AFTER^B")))
    assert asking.of_study(uid).known[uid].name == "AFTER, B"
    ledger.store.path(name).unlink()
    gone = asking.of_study(uid)
    assert (dict(gone.known), gone.not_now) == ({}, frozenset())
    assert not asking._kept


def test_when_nobody_answers_it_is_not_now_and_nobody_is_asked_for_a_moment(
    settings: Settings, ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asks, now = [], [100.0]

    def nobody(settings: Settings, verb: str, within_s: float, slack_s: float, images: list[str]) -> object:
        asks.append(verb)
        raise NoAnalyser("away")

    monkeypatch.setattr(identities, "monotonic", lambda: now[0])
    monkeypatch.setattr(identities, "ask", nobody)
    uid = study(ledger, "2.25.502", stored(ledger, tmp_path, sample()))
    asking = Identities(settings, ledger)
    for _ in range(3):
        assert asking.of_study(uid).not_now == {uid}
    assert len(asks) == 1
    now[0] += identities.AWAY_S
    asking.of_study(uid)
    assert len(asks) == 2


def test_an_analyser_that_hangs_holds_no_page_up_for_longer_than_the_page_says(
    settings: Settings, ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It listens, and never answers."""
    hung = settings.model_copy(update={"node": settings.node.model_copy(update={"state_dir": tmp_path})})
    run_dir(hung).mkdir(parents=True, exist_ok=True)
    uid = study(ledger, "2.25.520", stored(ledger, tmp_path, sample()))
    monkeypatch.setattr(identities, "WITHIN_S", 0.1)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        with address(hung) as where:
            listener.bind(where)
        listener.listen()
        began = monotonic()
        assert Identities(hung, ledger).of_study(uid).not_now == {uid}
        assert monotonic() - began < 50.0  # and not what it may take elsewhere in this file


@pytest.mark.usefixtures("served")
def test_a_header_that_is_begun_late_is_read_for_no_longer_than_whoever_asked_waits(
    settings: Settings, ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the page would hear nothing of the other images, and ask for this one again and again."""
    names = [stored(ledger, tmp_path, sample()) for _ in range(2)]
    headers = Headers(settings)
    headers._child.start()
    given: list[float] = []

    def slow(path: Path, within_s: float) -> dict[str, str]:
        given.append(within_s)
        now[0] += 1.5
        return dict.fromkeys(SAID, "")

    now = [100.0]
    monkeypatch.setattr(header_verb, "WALL_S", 2.0)
    monkeypatch.setattr(header_verb, "monotonic", lambda: now[0])
    monkeypatch.setattr(headers._child, "header", slow)
    with closing(headers):
        assert len(headers.answer({"images": [*names, *names]}, 102.0).said["headers"]) == 2
    assert given == pytest.approx([header_verb.WALL_S, 0.5 + header_verb.GRACE_S])
    assert header_verb.GRACE_S < identities.SLACK_S


def test_a_reader_that_stalls_makes_no_study_nameless_for_longer_than_a_minute(
    settings: Settings, ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, served: LookServer
) -> None:
    child = served._headers._child
    child.start()
    now = [100.0]
    monkeypatch.setattr(identities, "monotonic", lambda: now[0])
    uid = study(ledger, "2.25.510", stored(ledger, tmp_path, sample(PatientName="SLOW^A")))
    asking = Identities(settings, ledger)
    assert child.pid
    os.kill(child.pid, signal.SIGSTOP)
    with monkeypatch.context() as impatient:
        impatient.setattr(header_verb, "WALL_S", 0.2)
        assert asking.of_study(uid).not_now == {uid}
    starts = child.starts
    assert asking.of_study(uid) == identities.Whose({}, frozenset({uid})), "said to be unreadable"
    assert child.starts == starts, "asked again, and waited for again, by every page"
    now[0] += identities.NOT_NOW_S
    assert asking.of_study(uid).known[uid].name == "SLOW, A"


@pytest.mark.usefixtures("served")
def test_a_file_that_is_no_image_is_unreadable_for_good_and_a_disk_that_fails_is_not(
    settings: Settings, ledger: Ledger
) -> None:
    broken = ledger.store.put("instances", "cd" * 32, ".dcm", deflated_header() + b"nothing that was deflated")
    assert asked(settings, broken) == [None]
    error = OSError(5, "Input/output error")
    with mock.patch.object(Path, "open", side_effect=error), pytest.raises(CannotLook) as refused:
        header_child.header({"path": str(ledger.store.path(broken))})
    assert refused.value.reason_code != header_verb.UNREADABLE


def test_an_answer_that_makes_no_sense_names_nobody(
    settings: Settings, ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uid = study(ledger, "2.25.503", stored(ledger, tmp_path, sample()))
    whole = dict.fromkeys(SAID, "x")
    for said in ({"headers": [whole | {"PatientID": "x" * 5000}]}, {"headers": [whole | {"PatientID": 5}]}):
        monkeypatch.setattr(identities, "ask", lambda *args, said=said, **named: header_verb.Reply(said))
        whose = Identities(settings, ledger).of_study(uid)
        assert (dict(whose.known), whose.not_now) == ({}, frozenset())
    for said in ({}, {"headers": 5}, {"headers": []}):
        monkeypatch.setattr(identities, "ask", lambda *args, said=said, **named: header_verb.Reply(said))
        assert Identities(settings, ledger).of_study(uid).not_now == {uid}


def test_what_is_remembered_has_an_end(settings: Settings, ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identities, "KEPT_MAX", 3)
    asking = Identities(settings, ledger)
    for number in range(10):
        asking._remember({str(number): identities._Kept((0, 0, 0), None)})
    assert list(asking._kept) == ["7", "8", "9"]
