"""`send` tells a peer that refuses from one that is not there, calls as it is told to, and speaks TLS."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom import AE, evt
from pynetdicom.sop_class import CTImageStorage, DigitalXRayImageStorageForPresentation  # type: ignore[attr-defined]
from typer.testing import CliRunner, Result

from node.cli import app
from node.trying import authority
from tests.support.dx import make_dx, write
from tests.support.peers import free_port
from tests.support.receiving import start_receiving
from tests.support.storescp import storescp

JPEG_LS = "1.2.840.10008.1.2.4.80"


@pytest.fixture
def port(request: pytest.FixtureRequest) -> Iterator[int]:
    """A peer that takes CT, or our class in a syntax that was not offered, or our class as it comes."""
    ae = AE(ae_title="PACS")
    ae.add_supported_context(CTImageStorage, ExplicitVRLittleEndian)
    if request.param == "another syntax":
        ae.add_supported_context(DigitalXRayImageStorageForPresentation, JPEG_LS)
    if request.param == "some":
        ae.add_supported_context(DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian)
    handlers = [(evt.EVT_C_STORE, lambda event: 0)]
    server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
    yield int(server.server_address[1])
    server.shutdown()
    server.server_close()


def send(port: int, folder: Path) -> Result:
    result = CliRunner().invoke(app, ["send", str(folder), "--to", f"PACS@127.0.0.1:{port}"], env={"COLUMNS": "400"})
    assert "no connection" not in result.output
    return result


@contextmanager
def answering(*statuses: int, times: int = 1) -> Iterator[int]:
    """A peer that answers each image with the next of `statuses`, the first so many times; its port."""
    left = iter(statuses)

    def repeat_first(event: evt.Event) -> None:
        dimse, again = event.assoc.dimse, [times - 1]
        say = dimse.send_msg

        def say_again(*message: Any) -> None:
            for _ in range(1 + again[0]):
                say(*message)
            again[0] = 0

        dimse.send_msg = say_again

    ae = AE(ae_title="PACS")
    ae.add_supported_context(DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian)
    handlers = [(evt.EVT_C_STORE, lambda event: next(left)), (evt.EVT_ACCEPTED, repeat_first)]
    server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
    try:
        yield int(server.server_address[1])
    finally:
        server.shutdown()
        server.server_close()


def test_an_answer_that_is_given_twice_is_not_the_next_images(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        write(make_dx(), tmp_path / f"{name}.dcm")
    with answering(0x0000, 0xA700, 0xC000, times=2) as port:
        result = send(port, tmp_path)
    assert result.exit_code == 1
    assert result.stdout.splitlines() == ["0x0000\t1", "0xA700\t1", "0xC000\t1"]
    assert "b.dcm: refused with status 0xA700" in result.stderr
    assert "c.dcm: refused with status 0xC000" in result.stderr
    [said] = [line for line in result.stderr.splitlines() if "answer_not_asked_for" in line]
    assert str(tmp_path) not in said


def test_what_is_stored_with_a_warning_is_stored_and_said(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write(make_dx(), tmp_path / f"{name}.dcm")
    with answering(0xB000, 0x0000) as port:
        result = send(port, tmp_path)
    assert result.exit_code == 0
    assert result.stdout.splitlines() == ["0x0000\t1", "0xB000\t1"]
    assert "a.dcm: stored with a warning (0xB000)" in result.stderr
    assert "refused" not in result.output


def test_a_uid_that_is_there_already_is_no_proof_that_this_file_is(tmp_path: Path) -> None:
    write(make_dx(), tmp_path / "a.dcm")
    with answering(0x0111) as port:
        result = send(port, tmp_path)
    assert result.exit_code == 1
    assert "refused with status 0x0111" in result.stderr


@pytest.mark.parametrize("to", ["OPEN[/b]@127.0.0.1", "[red]X@127.0.0.1", "PACS@[::1]"])
def test_what_stands_in_brackets_stays_in_sentences(to: str, tmp_path: Path) -> None:
    write(make_dx(), tmp_path / "a.dcm")
    port = free_port()
    result = CliRunner().invoke(app, ["send", str(tmp_path), "--to", f"{to}:{port}"], env={"COLUMNS": "400"})
    assert result.exit_code == 1
    assert f"no connection to {to}:{port}" in result.output


@pytest.mark.parametrize(
    ("port", "why"),
    [("another class", "this class is not supported"), ("another syntax", "this transfer syntax is not supported")],
    indirect=["port"],
)
def test_a_peer_that_accepts_nothing_is_there_and_refuses_by_name(port: int, why: str, tmp_path: Path) -> None:
    write(make_dx(), tmp_path / "a.dcm")
    result = send(port, tmp_path)
    assert result.exit_code == 1
    assert "Digital X-Ray Image Storage - For Presentation in Explicit VR Little Endian" in result.output
    assert f": {why}" in result.output
    assert "not sent\t1" in result.output


@pytest.mark.parametrize("port", ["some"], indirect=True)
def test_what_is_accepted_goes_although_something_else_is_refused(port: int, tmp_path: Path) -> None:
    write(make_dx(), tmp_path / "a.dcm")
    write(make_dx(SOPClassUID="1.2.840.10008.5.1.4.1.1.1.2"), tmp_path / "b.dcm")
    result = send(port, tmp_path)
    assert "0x0000\t1" in result.output
    assert "not sent\t1" in result.output
    assert f"b.dcm: PACS@127.0.0.1:{port} does not accept" in result.output


def test_nobody_there_is_a_sentence(tmp_path: Path) -> None:
    write(make_dx(), tmp_path / "a.dcm")
    result = CliRunner().invoke(app, ["send", str(tmp_path), "--to", f"PACS@127.0.0.1:{free_port()}"])
    assert result.exit_code == 1
    assert "no connection to PACS@127.0.0.1" in " ".join(result.output.split())


# --- whom it calls as, and TLS ---


@pytest.fixture
def pki(tmp_path: Path) -> Path:
    authority.make(tmp_path / "pki", ("localhost", "127.0.0.1"), days=2)
    write(make_dx(), tmp_path / "image.dcm")
    return tmp_path / "pki"


def ask(pki: Path, to: str, *options: object) -> Result:
    arguments = ["send", pki.with_name("image.dcm"), "--to", to, *options]
    return CliRunner().invoke(app, [str(one) for one in arguments], env={"COLUMNS": "400"})


def ours(pki: Path) -> list[object]:
    return ["--tls", "--ca-file", pki / "ca.pem", "--cert-file", pki / "sender.pem", "--key-file", pki / "sender.key"]


def data_of(path: Path) -> bytes:
    content = path.read_bytes()
    return content[144 + int.from_bytes(content[140:144], "little") :]


def test_storescp_takes_it_over_tls_byte_for_byte(pki: Path, tmp_path: Path) -> None:
    shown = ["+tls", pki / "node.key", pki / "node.pem", "+cf", pki / "ca.pem", "-rc"]  # -rc: ours is asked for
    with storescp(tmp_path / "there", *shown) as port:
        result = ask(pki, f"PACS@127.0.0.1:{port}", *ours(pki))
        plain = ask(pki, f"PACS@127.0.0.1:{port}")
    assert result.exit_code == 0, result.output
    [arrived] = (tmp_path / "there").iterdir()
    assert data_of(arrived) == data_of(tmp_path / "image.dcm")
    assert plain.exit_code == 1


def test_our_own_receiver_takes_it_over_tls_under_the_name_that_it_allows(pki: Path, tmp_path: Path) -> None:
    files = {"ca_file": pki / "ca.pem", "certificate_file": pki / "node.pem", "key_file": pki / "node.key"}
    receiving = start_receiving(
        tmp_path / "node", tls={"enabled": True, **files}, allowed_calling_ae_titles=["CT1"], ae_title="OPENTRIAGE"
    )
    try:
        to = f"OPENTRIAGE@localhost:{receiving.address[1]}"
        stranger = ask(pki, to, *ours(pki))
        known = ask(pki, to, "--calling-ae", "CT1", *ours(pki))
    finally:
        receiving.receiver.stop(5.0)
    assert stranger.exit_code == 1
    assert "calling AE title OPENTRIAGE" in stranger.output
    assert known.exit_code == 0, known.output


@pytest.mark.parametrize(
    ("host", "option", "said"),
    [
        ("127.0.0.1", "", "of no authority in ca_file"),
        ("localhost", "", ""),
        ("0.0.0.0", "", "another"),
        ("0.0.0.0", "--no-verify-host", ""),
    ],
)
def test_the_receivers_certificate_is_held_against_its_authority_and_host(
    host: str, option: str, said: str, pki: Path, tmp_path: Path
) -> None:
    shown = pki
    if "authority" in said:
        authority.make(tmp_path / "other", ("localhost", "127.0.0.1"), days=2)
        shown = tmp_path / "other"
    peer = ["+tls", shown / "node.key", shown / "node.pem", "+cf", pki / "ca.pem"]
    with storescp(tmp_path / "there", *peer) as port:
        result = ask(pki, f"PACS@{host}:{port}", *ours(pki), *filter(None, [option]))
    assert result.exit_code == (1 if said else 0), result.output
    assert said in result.output


@pytest.mark.parametrize(
    ("to", "calling"), [("PÄCS", "CT1"), ("OPEN\\\\X", "CT1"), ("A\x07", "CT1"), ("PACS", "lönger")]
)
def test_what_is_no_ae_title_is_refused_before_anything_is_sent(to: str, calling: str, pki: Path) -> None:
    result = ask(pki, f"{to}@127.0.0.1:1", "--calling-ae", calling)
    assert result.exit_code == 2
    assert "is no AE title: an AE title has 1 to 16 characters of ASCII, no backslash" in result.output


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--ca-file", "{pki}/ca.pem"], "--ca-file without --tls"),
        (["--tls"], "--tls needs --ca-file"),
        (["--tls", "--ca-file", "{pki}/ca.pem", "--cert-file", "{pki}/sender.pem"], "belong together"),
        (["--tls", "--ca-file", "{pki}/nowhere.pem"], "does not exist"),
        (["--calling-ae", "SEVENTEEN-LETTERS"], "is no AE title"),
    ],
)
def test_wrong_usage_is_a_sentence_and_opens_no_connection(options: list[str], said: str, pki: Path) -> None:
    result = ask(pki, "PACS@127.0.0.1:1", *(one.format(pki=pki) for one in options))
    assert result.exit_code == 2
    assert said in result.output
