"""The header we write, and the quarantine."""

import io
from pathlib import Path

import pydicom
import pytest

from scp import part10
from scp.admission.quarantine import Quarantine
from tests.support.encoded import CT, data_set


def test_the_header_is_read_by_others_and_is_the_same_every_time() -> None:
    header = part10.header(CT, "1.2.3.4", "1.2.840.10008.1.2.1")
    assert header == part10.header(CT, "1.2.3.4", "1.2.840.10008.1.2.1")
    assert header[:128] == bytes(128)
    ds = pydicom.dcmread(io.BytesIO(header + data_set()))
    assert ds.file_meta.MediaStorageSOPClassUID == CT
    assert ds.file_meta.MediaStorageSOPInstanceUID == "1.2.3.4"
    assert ds.file_meta.TransferSyntaxUID == "1.2.840.10008.1.2.1"
    assert ds.file_meta.FileMetaInformationVersion == b"\0\1"
    assert ds.file_meta.FileMetaInformationGroupLength == len(header) - 128 - 4 - 12
    assert ds.file_meta.ImplementationClassUID.is_valid
    assert ds.SOPInstanceUID == "1.2.3.4"


def broken(folder: Path, size: int = 10) -> Path:
    path = folder / "part"
    path.unlink(missing_ok=True)
    path.write_bytes(b"x" * size)
    path.chmod(0o600)
    return path


def test_quarantined_bytes_are_kept_private_and_the_original_stays(tmp_path: Path) -> None:
    quarantine = Quarantine(tmp_path / "q")
    kept = quarantine.keep(broken(tmp_path), 10)
    assert kept is not None
    assert kept.read_bytes() == b"x" * 10
    assert kept.stat().st_mode & 0o777 == 0o600
    assert quarantine.folder.stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "part").exists()


@pytest.mark.parametrize(("limits", "kept"), [({"max_files": 3}, 3), ({"max_bytes": 25}, 2)])
def test_the_quarantine_is_bounded_and_the_oldest_makes_room(tmp_path: Path, limits: dict[str, int], kept: int) -> None:
    quarantine = Quarantine(tmp_path / "q", **limits)
    last = None
    for _ in range(6):
        last = quarantine.keep(broken(tmp_path), 10)
    files = list(quarantine.folder.iterdir())
    assert len(files) == kept
    assert last in files


def test_what_is_larger_than_the_quarantine_is_not_kept(tmp_path: Path) -> None:
    quarantine = Quarantine(tmp_path / "q", max_bytes=5)
    assert quarantine.keep(broken(tmp_path), 10) is None
