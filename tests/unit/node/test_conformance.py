"""The conformance statement says what the code does, and nobody forgets to write it anew."""

import re
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pynetdicom import AE, evt
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]
from typer.testing import CliRunner

from config import Settings
from config.settings import Destination
from node import conformance
from node.cli import app
from node.commands import conformance as command
from scp.errors import ReceiveError
from scp.network.contexts import negotiation_table
from scp.status import STATUS_OF
from sr_writer.association import asking
from sr_writer.codes import PRIVATE_SCHEME
from sr_writer.probe_study import probe_objects
from sr_writer.profiles import PROFILES

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def text() -> str:
    return conformance.statement()


def test_the_document_is_what_the_code_says(text: str) -> None:
    assert (ROOT / conformance.FILE).read_text(encoding="utf-8") == text, "run `opentriage conformance --write`"


def test_every_accepted_class_and_transfer_syntax_is_in_it(text: str) -> None:
    table = negotiation_table(Settings().receive)
    missing = {uid for uid in {*table, *(s for named in table.values() for s in named)} if f"| {uid} |" not in text}
    assert missing <= {"1.2.840.10008.1.1"}  # Verification: in words


def test_every_accepted_class_has_a_name(text: str) -> None:
    received = text.partition("#### 4.2.1")[2].partition("#### 4.2.2")[0]
    assert not re.search(r"\| ([\d.]+) \| \1 \|", received)
    assert "| Label Map Segmentation Storage | 1.2.840.10008.5.1.4.1.1.66.7 |" in received


def test_a_peer_hears_from_the_sender_who_it_is_as_the_document_says(text: str, tmp_path: Path) -> None:
    heard: list[tuple[str, str]] = []

    def requested(event: Any) -> None:
        said = event.assoc.requestor
        heard.append((str(said.implementation_class_uid), str(said.implementation_version_name)))

    ae = AE("PACS")
    ae.add_supported_context(Verification)
    server: Any = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_REQUESTED, requested)])
    try:
        to = Destination(ae_title="PACS", host="127.0.0.1", port=server.server_address[1])
        with asking(to, Settings().deliver, Verification):
            pass
    finally:
        server.shutdown()
        server.server_close()
    [(uid, name)] = heard
    assert f"Implementation class UID {uid}, implementation version name `{name}`: as in the files" in text
    meta = dcmread(BytesIO(probe_objects(tmp_path)[0].content)).file_meta
    assert (meta.ImplementationClassUID, meta.ImplementationVersionName) == (uid, name)


def test_every_class_that_a_profile_sends_is_in_it(text: str) -> None:
    sent = text.partition("#### 4.2.2")[2].partition("#### 4.2.3")[0]
    for profile in PROFILES.values():
        for classes in profile.sop_classes().values():
            assert all(f"| {uid} |" in sent for uid in classes)


def test_every_private_code_that_an_object_holds_is_in_it(text: str, tmp_path: Path) -> None:
    used = {code for made in probe_objects(tmp_path) for code in _private(dcmread(BytesIO(made.content)))}
    assert used >= {"PROB_SD", "CONNECTION_TEST"}
    assert all(f"| {code} |" in text for code in used)


def _private(ds: Dataset) -> set[str]:
    found = {str(ds.CodeValue)} if ds.get("CodingSchemeDesignator") == PRIVATE_SCHEME and "CodeValue" in ds else set()
    for element in ds:
        if element.VR == "SQ":
            found |= {code for item in element.value for code in _private(item)}
    return found


def test_a_new_status_is_in_it_without_another_line(monkeypatch: pytest.MonkeyPatch) -> None:
    class OutOfTea(ReceiveError):
        """There is no tea."""

    monkeypatch.setitem(STATUS_OF, OutOfTea, 0xC7EA)
    assert "| 0xC7EA | There is no tea. |" in conformance.table((), conformance._statuses())


def test_check_ends_with_1_when_the_document_says_something_else(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "_ROOT", tmp_path)
    monkeypatch.setattr(command, "statement", lambda: text)
    assert _run("--write").exit_code == 1  # no source tree there
    (tmp_path / "docs").mkdir()
    assert _run("--check").exit_code == 1
    assert _run("--write").exit_code == 0
    assert _run("--check").exit_code == 0
    path = tmp_path / conformance.FILE
    path.write_text(path.read_text(encoding="utf-8").replace("0xA700", "0xA701"), encoding="utf-8")
    result = _run("--check")
    assert result.exit_code == 1
    assert "conformance --write" in result.output
    assert _run().output == text


def _run(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["conformance", *arguments])


def test_it_names_no_place_of_the_machine_that_made_it(text: str) -> None:
    assert str(ROOT) not in text
    assert "/tmp" not in text
