"""`send` tells a peer that refuses from one that is not there."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom import AE, evt
from pynetdicom.sop_class import CTImageStorage, DigitalXRayImageStorageForPresentation  # type: ignore[attr-defined]
from typer.testing import CliRunner, Result

from node.cli import app
from tests.support.dx import make_dx, write

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
    assert "nobody answers" not in result.output
    return result


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
    assert "b.dcm: PACS at 127.0.0.1" in result.output
