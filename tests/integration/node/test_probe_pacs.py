"""`opentriage probe-pacs`, against archives that other people wrote."""

import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import SecondaryCaptureImageStorage
from pynetdicom import AE, AllStoragePresentationContexts, evt
from typer.testing import CliRunner, Result

from node.cli import app
from node.console import out
from sr_writer.probe_study import PATIENT_ID, STUDY_UID, WORDS, probe_objects
from tests.support.committing import Archive
from tests.support.dcmqrscp import QueryArchive
from tests.support.orthanc import AE_TITLE, Orthanc
from tests.support.peers import free_port, need
from tests.support.storescp import storescp
from tests.unit.sr_writer.test_result_objects import items

SR_CLASSES = "1.2.840.10008.5.1.4.1.1.88."
OBJECTS = 15  # 4 images, 3 + 3 reports, 5 other kinds


def ask(*arguments: object, answer: str = "") -> Result:
    return CliRunner(env={"COLUMNS": "200"}).invoke(app, ["probe-pacs", *map(str, arguments)], input=answer)


def lines(result: Result, start: str) -> list[list[str]]:
    """The cells of the table's rows of one kind."""
    rows = [[cell.strip() for cell in line.strip("│").split("│")] for line in result.output.splitlines()]
    return [row for row in rows if row[0] == start]


@contextmanager
def peer(refuses: str = "", answers: int = 0x0000) -> Iterator[tuple[int, list[tuple[int, Dataset]]]]:
    """A storage service that does not know the classes below `refuses`, and gives every object the same answer."""
    came: list[tuple[int, Dataset]] = []

    def store(event: Any) -> int:
        came.append((int(event.request.Priority), dcmread(BytesIO(event.encoded_dataset()))))
        return answers

    ae = AE("ANY")
    for context in AllStoragePresentationContexts:
        if not refuses or not str(context.abstract_syntax).startswith(refuses):
            ae.add_supported_context(context.abstract_syntax)
    server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, store)])
    try:
        yield server.server_address[1], came
    finally:
        server.shutdown()
        server.server_close()


def test_without_a_person_to_ask_nothing_is_sent() -> None:
    with peer() as (port, came):
        result = ask(f"ANY@127.0.0.1:{port}")
    assert result.exit_code == 2
    assert "Nothing was sent" in result.output
    assert not came


@pytest.mark.parametrize(("answer", "sent"), [("n\n", 0), ("y\n", OBJECTS)])
def test_a_person_is_asked_and_told_what_is_sent_to_whom_and_that_it_stays(
    answer: str, sent: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("node.commands.probe_pacs.is_terminal", lambda: True)
    with peer() as (port, came):
        result = ask(f"ANY@127.0.0.1:{port}", answer=answer)
        assert len(came) == sent
    for said in (f"ANY@127.0.0.1:{port}", PATIENT_ID, STUDY_UID, "stay there", "Segmentation Storage", "LOW"):
        assert said in result.output
    assert result.exit_code == (0 if sent else 1)


def test_every_object_says_that_it_is_a_probe_and_leaves_with_low_priority() -> None:
    with peer() as (port, came):
        assert ask(f"ANY@127.0.0.1:{port}", "--yes").exit_code == 0
    assert {priority for priority, _ in came} == {2}
    assert {ds.StudyInstanceUID for _, ds in came} == {STUDY_UID}
    assert {ds.PatientID for _, ds in came} == {PATIENT_ID}
    assert all("PROBE" in ds.SeriesDescription for _, ds in came)
    for _, ds in came:
        ds.pop("PixelData", None)
    text = "\n".join(ds.to_json() for _, ds in came)
    assert not re.search(r"AI TRIAGE|AI PRIORITY|High priority|pneumo|HIGH|MEDIUM", text)


def test_the_study_is_the_same_each_time(tmp_path: Path) -> None:
    one, other = probe_objects(tmp_path / "one"), probe_objects(tmp_path / "other")
    assert [made.content for made in one] == [made.content for made in other]
    assert len({made.sop_instance_uid for made in one}) == OBJECTS


def test_a_reader_finds_the_words_of_a_probe_only(tmp_path: Path) -> None:
    said: dict[str, set[str]] = {}
    for made in probe_objects(tmp_path):
        for item in items(dcmread(BytesIO(made.content))):
            if item.ValueType == "TEXT":
                said.setdefault(item.ConceptNameCodeSequence[0].CodeMeaning, set()).add(item.TextValue)
    for name in ("Comment", "Finding", "Impression", "Key Object Description"):
        assert said.pop(name) == {WORDS}
    assert all(name.startswith(("Device", "Algorithm", "Tracking")) for name in said)


def test_every_object_of_the_probe_is_valid(tmp_path: Path) -> None:
    tool = need("dciodvfy")
    for made in probe_objects(tmp_path / "store"):
        path = tmp_path / "one.dcm"
        path.write_bytes(made.content)
        done = subprocess.run([tool, "-new", str(path)], capture_output=True, text=True, check=False)
        assert "Error" not in done.stdout + done.stderr, (made.kind, done.stdout + done.stderr)


def test_storescp_stores_all_and_cannot_be_asked(tmp_path: Path) -> None:
    with storescp(tmp_path / "pacs") as port:
        result = ask(f"ANY@127.0.0.1:{port}", "--yes")
        assert len(list((tmp_path / "pacs").iterdir())) == OBJECTS
    assert result.exit_code == 0, result.output
    [row] = lines(result, "segmentation")
    assert row[2:] == ["yes", "Explicit VR Little Endian", "0x0000", "unprovable"]
    assert [row[2] for row in lines(result, "measurement sr")] == ["one of these"] * 3


def test_dcmqrscp_lists_what_it_stored(tmp_path: Path) -> None:
    with QueryArchive(tmp_path / "archive") as archive:
        result = ask(f"DCMQR@127.0.0.1:{archive.port}", "--yes", "--profile", "triage-only")
        accepted = [row for row in lines(result, "text sr") if row[4] == "0x0000"]
        assert accepted
        assert all(row[5] == "found (C-FIND)" for row in accepted)
    assert result.exit_code == 0, result.output
    assert lines(result, "segmentation")[0][2] == "no"


def test_orthanc_lists_all_of_it_in_both_ways(tmp_path: Path) -> None:
    modalities = [("OPENTRIAGE", free_port())]
    with Orthanc(tmp_path / "orthanc", plugins=["DicomWeb"], modalities=modalities) as orthanc:
        to = f"{AE_TITLE}@127.0.0.1:{orthanc.port}"
        result = ask(to, "--yes", "--qido", f"{orthanc.url}/dicom-web")
        assert len(orthanc.find("Instance", StudyInstanceUID=STUDY_UID)) == OBJECTS
        again = ask(to, "--yes", "--profile", "air")
        assert len(orthanc.find("Instance", StudyInstanceUID=STUDY_UID)) == OBJECTS
    assert result.exit_code == again.exit_code == 0, result.output
    assert {row[5] for row in lines(result, "key objects")} == {"found (C-FIND, QIDO-RS)"}


def test_a_peer_that_refuses_reports_is_not_enough_for_any_profile() -> None:
    with peer(refuses=SR_CLASSES) as (port, came):
        result = ask(f"ANY@127.0.0.1:{port}", "--yes")
    assert result.exit_code == 1
    assert "lacks: measurement sr" in " ".join(result.output.split())
    assert lines(result, "text sr")[0][3:] == ["class refused", "-", "-"]
    assert lines(result, "secondary capture")[0][4] == "0x0000"
    assert came


def test_one_class_of_a_choice_is_enough() -> None:
    with peer(refuses=f"{SR_CLASSES}33") as (port, _):
        result = ask(f"ANY@127.0.0.1:{port}", "--yes")
    assert result.exit_code == 0, result.output


def test_what_only_a_wish_would_send_may_be_refused() -> None:
    with peer(refuses="1.2.840.10008.5.1.4.1.1.11.") as (port, _):
        assert ask(f"ANY@127.0.0.1:{port}", "--yes").exit_code == 0


def test_a_measurement_report_that_goes_with_boxes_alone_is_needed_where_boxes_are_on(tmp_path: Path) -> None:
    site = tmp_path / "site.toml"
    site.write_text("[report]\nlocalization = 'box'\n")
    with peer(refuses=SR_CLASSES + "33") as (port, _), peer(refuses=SR_CLASSES) as (deaf, _):
        to = [f"ANY@127.0.0.1:{port}", "--yes", "--profile", "ohif"]
        plain, boxes = ask(*to), ask(*to, "--config", site)
        nothing = ask(f"ANY@127.0.0.1:{deaf}", *to[1:])
    assert {row[2] for row in lines(plain, "measurement sr")} == {"if boxes are on"}
    assert {row[2] for row in lines(boxes, "measurement sr")} == {"one of these"}
    assert plain.exit_code == boxes.exit_code == 0
    assert "lacks: text sr" in " ".join(nothing.output.split())
    assert "measurement sr (" not in nothing.output


def test_a_peer_is_called_as_the_settings_say_unless_the_command_says_otherwise(tmp_path: Path) -> None:
    site = tmp_path / "site.toml"
    with peer() as (port, _), peer() as (other, _):
        site.write_text(
            f"[receive]\nae_title = 'OWN'\n[[destinations]]\nae_title = 'ANY'\nhost = '127.0.0.1'\nport = {port}\n"
            "calling_ae_title = 'OT4'\nprofile = 'air'\n"
        )
        known = ask(f"ANY@127.0.0.1:{port}", "--yes", "-c", site)
        told = ask(f"ANY@127.0.0.1:{port}", "--yes", "-c", site, "--calling", "ME", "--profile", "ohif")
        unknown = ask(f"ANY@127.0.0.1:{other}", "--yes", "-c", site)
        site.write_text("[receive]\nae_title = 'OWN'\n")
        own = ask(f"ANY@127.0.0.1:{port}", "--yes", "-c", site)
        default = ask(f"ANY@127.0.0.1:{port}", "--yes")
    assert [re.findall(r"called by (\w+)", one.output) for one in (known, told, unknown, own, default)] == [
        ["OT4"], ["ME"], ["OT4"], ["OWN"], ["OPENTRIAGE"],
    ]  # fmt: skip
    assert "profile air" in known.output
    assert "profile ohif" in told.output
    assert "profile generic-pacs" in unknown.output


def test_no_word_is_broken_in_a_narrow_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    tables = []
    with peer(refuses=SR_CLASSES + "33") as (port, _):
        for width in (200, 80):
            monkeypatch.setattr(out, "_width", width)
            lines = ask(f"ANY@127.0.0.1:{port}", "--yes").output.splitlines()
            tables.append([line for line in lines if line.startswith(("│", "┃"))])
    wide, narrow = (set(re.split(r"[\s│┃]+", "\n".join(table))) for table in tables)
    assert max(map(len, tables[0])) > 80 >= max(map(len, tables[1]))
    assert narrow <= wide


def test_a_peer_that_accepts_the_contexts_and_stores_nothing_fails_with_a_sentence() -> None:
    with peer(answers=0xA700) as (port, _):
        result = ask(f"ANY@127.0.0.1:{port}", "--yes")
    assert result.exit_code == 1
    assert lines(result, "secondary capture")[0][4:] == ["0xA700", "-"]
    assert "Nothing was stored there." in result.output
    assert "The study" not in result.output
    assert "cannot take the" in result.output


def test_an_archive_that_lists_nothing_of_what_it_stored_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("node.trying.probe._LISTS_WITHIN_S", 0.0)

    ae = AE("ANY")
    for context in AllStoragePresentationContexts:
        ae.add_supported_context(context.abstract_syntax)
    ae.add_supported_context("1.2.840.10008.5.1.4.1.2.2.1")
    handlers: list[Any] = [(evt.EVT_C_STORE, lambda event: 0x0000), (evt.EVT_C_FIND, lambda event: iter(()))]
    server: Any = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
    try:
        result = ask(f"ANY@127.0.0.1:{server.server_address[1]}", "--yes")
    finally:
        server.shutdown()
        server.server_close()
    assert result.exit_code == 1
    assert lines(result, "text sr")[0][5] == "not found (C-FIND)"


@pytest.mark.parametrize(
    ("kind", "found"),
    [
        ({"finds": False}, "found (Storage Commitment)"),
        ({}, "found (C-FIND, Storage Commitment)"),
        ({"finds": False, "reply_to": 1, "silent": True}, "unprovable"),
    ],
    ids=["commits", "lists and commits", "answers the node alone"],
)
def test_an_archive_that_commits_proves_it(kind: dict[str, Any], found: str, tmp_path: Path) -> None:
    site = tmp_path / "site.toml"
    site.write_text(f"[deliver]\ncommitment_wait_s = {1 if 'silent' in kind else 60}\n")
    with Archive(**kind) as archive:  # its port is chosen now: one of the time of collection may be another's by now
        result = ask(f"{archive.destination().ae_title}@127.0.0.1:{archive.port}", "--yes", "--config", site)
    assert result.exit_code == 0, result.output
    assert lines(result, "text sr")[0][5] == found
    assert len(archive.asked[0].ReferencedSOPSequence) == OBJECTS, result.output


def test_images_that_are_refused_do_not_matter() -> None:
    with peer(refuses="1.2.840.10008.5.1.4.1.1.4") as (port, came):
        result = ask(f"ANY@127.0.0.1:{port}", "--yes")
    assert result.exit_code == 0, result.output
    assert SecondaryCaptureImageStorage in {ds.SOPClassUID for _, ds in came}


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["ANY@localhost:104", "--profile", "none"],
        ["ANY@localhost:104", "--qido", "ftp://x"],
        ["ÄNY@localhost:104"],
        ["ANY@localhost:104", "--calling", "Ä"],
    ],
)
def test_wrong_usage_is_a_sentence(arguments: list[str]) -> None:
    assert ask(*arguments, "--yes").exit_code == 2


def test_nobody_there_is_a_sentence() -> None:
    result = ask(f"ANY@127.0.0.1:{free_port()}", "--yes")
    assert result.exit_code == 1
    assert "no connection" in result.output
