"""Dirty headers give clean objects, and the patient stays who the source says."""

import warnings
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.tag import Tag

from sr_writer.errors import SourceUnreadable
from sr_writer.grey_pipeline import read_pipeline
from sr_writer.source import SourceHeader, read_header, read_identity
from tests.support.dx import make_dx, write

NAME, ID = b"\x10\x00\x10\x00", b"\x10\x00\x20\x00"


def _write(ds: Dataset, path: Path) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ds.save_as(path, enforce_file_format=True)
    return path


def _header(ds: Dataset, tmp_path: Path) -> SourceHeader:
    return read_header(_write(ds, tmp_path / "source.dcm"), str(ds.StudyInstanceUID))


def _with_raw_name(raw: bytes, tmp_path: Path, charset: str | list[str] | None) -> SourceHeader:
    """A source whose name holds exactly these bytes, whatever the character set says of them."""
    ds = make_dx(SpecificCharacterSet=charset, PatientName="X" * (len(raw) + len(raw) % 2))
    path = _write(ds, tmp_path / "raw.dcm")
    padded = raw + b" " * (len(raw) % 2)
    content = path.read_bytes()
    assert content.count(b"X" * len(padded)) == 1
    path.write_bytes(content.replace(b"X" * len(padded), padded))
    return read_header(path, str(ds.StudyInstanceUID))


def test_the_patient_is_the_sources(tmp_path: Path) -> None:
    ds = make_dx(IssuerOfPatientID="HOSPITAL", InstitutionName="St. Anywhere")
    copied = _header(ds, tmp_path).patient_and_study
    for keyword in ("PatientName", "PatientID", "IssuerOfPatientID", "PatientBirthDate", "PatientSex", "PatientAge"):
        assert copied[keyword].value == ds[keyword].value, keyword
    for keyword in ("StudyInstanceUID", "StudyDate", "StudyTime", "StudyID", "AccessionNumber", "StudyDescription"):
        assert copied[keyword].value == ds[keyword].value, keyword
    assert copied.InstitutionName == "St. Anywhere"


def test_japanese_is_decoded(tmp_path: Path) -> None:
    ds = make_dx(SpecificCharacterSet=["", "ISO 2022 IR 87"], PatientName="Yamada^Tarou=山田^太郎=やまだ^たろう")
    copied = _header(ds, tmp_path).patient_and_study
    assert copied.PatientName == "Yamada^Tarou=山田^太郎=やまだ^たろう"
    assert copied.SpecificCharacterSet == "ISO_IR 192"


@pytest.mark.parametrize("encoding", ["latin-1", "utf-8"])
def test_umlauts_without_a_character_set_are_guessed(tmp_path: Path, encoding: str) -> None:
    assert _with_raw_name("Müller^Jörg".encode(encoding), tmp_path, None).patient_and_study.PatientName == "Müller^Jörg"


def test_an_unknown_character_set_is_not_fatal(tmp_path: Path) -> None:
    copied = _with_raw_name(b"Plain^Name", tmp_path, "ISO_IR 100").patient_and_study
    assert copied.PatientName == "Plain^Name"
    ds = make_dx(SpecificCharacterSet="NONSENSE", PatientName="Plain^Name")
    assert _header(ds, tmp_path).patient_and_study.PatientName == "Plain^Name"


def test_missing_type_2_elements_are_present_and_empty(tmp_path: Path) -> None:
    missing = ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyID", "AccessionNumber", "StudyTime")
    ds = make_dx(**dict.fromkeys(missing), ReferringPhysicianName=None)
    copied = _header(ds, tmp_path).patient_and_study
    for keyword in (*missing, "ReferringPhysicianName"):
        assert keyword in copied
        assert not copied[keyword].value


@pytest.mark.parametrize(
    ("keyword", "dirty", "clean"),
    [
        ("PatientSex", "U", ""),
        ("PatientSex", "F", "F"),
        ("PatientBirthDate", "2020.01.31", "20200131"),
        ("PatientBirthDate", "unknown", ""),
        ("StudyDate", "20201331", ""),
        ("StudyTime", "10:11:12", "101112"),
        ("StudyTime", "101112.25", "101112.25"),
        ("StudyTime", "morning", ""),
    ],
)
def test_dirty_values_are_cleaned(tmp_path: Path, keyword: str, dirty: str, clean: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ds = make_dx(**{keyword: dirty})
    assert _header(ds, tmp_path).patient_and_study[keyword].value == clean


def test_an_age_that_is_none_is_left_out(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ds = make_dx(PatientAge="4")
    assert "PatientAge" not in _header(ds, tmp_path).patient_and_study


def test_the_request_is_kept(tmp_path: Path) -> None:
    item = Dataset()
    item.RequestedProcedureID, item.RequestedProcedureDescription = "RP7", "Thorax"
    request = _header(make_dx(RequestAttributesSequence=Sequence([item])), tmp_path).request
    assert request is not None
    assert (request.AccessionNumber, request.RequestedProcedureID) == ("A1", "RP7")
    assert _header(make_dx(AccessionNumber=""), tmp_path).request is None


def test_times_follow_the_sources_clock(tmp_path: Path) -> None:
    header = _header(make_dx(TimezoneOffsetFromUTC="+0530"), tmp_path)
    assert header.utc_offset == timedelta(hours=5, minutes=30)
    assert f"{header.local(datetime(2026, 1, 1, tzinfo=UTC)):%H%M}" == "0530"
    assert header.patient_and_study.TimezoneOffsetFromUTC == "+0530"


def test_what_is_not_dicom_is_unreadable(tmp_path: Path) -> None:
    path = tmp_path / "none.dcm"
    with pytest.raises(SourceUnreadable):
        read_header(path, "1.2.3")


def test_nothing_is_warned_about_aloud(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    """pydicom's warnings quote values."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ds = make_dx(PatientBirthDate="SENTINEL", PatientAge="SENTINEL", StudyTime="SENTINEL")
    _header(ds, tmp_path)
    assert not [w for w in recwarn if "SENTINEL" in str(w.message)]


@pytest.mark.parametrize(("vr", "value"), [(b"FD", b"\1\2\3\4\5\6"), (b"US", b"\1\2\3"), (b"SQ", b"\1\2\3\4\5\6")])
@pytest.mark.parametrize("tag", [b"\x08\x00\x20\x00", b"\x10\x00\x20\x00", b"\x28\x00\x30\x00"])
def test_an_element_of_another_kind_than_its_bytes_is_empty_and_stops_no_report(
    tag: bytes, vr: bytes, value: bytes, tmp_path: Path
) -> None:
    """Study Date, Patient ID, Pixel Spacing. The image was looked at all the same: its alarm must leave."""
    path = write(make_dx(PixelSpacing=[1, 1]), tmp_path / "odd.dcm")
    content = path.read_bytes()
    at = content.index(tag, 132)
    length = int.from_bytes(content[at + 6 : at + 8], "little")
    size = len(value).to_bytes(2, "little") if vr != b"SQ" else b"\0\0" + len(value).to_bytes(4, "little")
    path.write_bytes(content[:at] + tag + vr + size + value + content[at + 8 + length :])
    assert read_header(path, "1.2.3").rows == 256
    read_identity(path)
    read_pipeline(path)


@pytest.mark.parametrize(("vr", "value"), [("OB", b"ID77"), ("US", 12849), ("FD", 12.0), ("AT", 0x00010002)])
def test_an_identity_that_is_no_text_is_none(vr: str, value: object, tmp_path: Path) -> None:
    """Another reader would read another one, and Python's spelling of bytes is nobody's."""
    ds = make_dx()
    for keyword in ("PatientID", "AccessionNumber"):
        ds[keyword] = DataElement(Tag(keyword), vr, value)
    said = _header(ds, tmp_path).patient_and_study
    assert (said.PatientID, said.AccessionNumber) == ("", "")


def _raw(keyword: str, value: bytes, tmp_path: Path) -> SourceHeader:
    """A source whose element holds exactly these bytes."""
    ds = make_dx(LossyImageCompression="01", **{keyword: "7" * len(value)})
    path = _write(ds, tmp_path / "raw.dcm")
    path.write_bytes(path.read_bytes().replace(b"7" * len(value), value))
    return read_header(path, "1.2.3")


@pytest.mark.parametrize("value", [b"about ten ", b"inf ", b"\xff\xff\xff\xff", b"12.5\\oh "])
def test_a_ratio_of_compression_that_is_no_number_is_not_repeated(value: bytes, tmp_path: Path) -> None:
    """Written into an object it would raise."""
    assert _raw("LossyImageCompressionRatio", value, tmp_path).lossy == {"LossyImageCompression": "01"}
    assert _raw("LossyImageCompressionRatio", b"12.5\\8 ", tmp_path).lossy["LossyImageCompressionRatio"] == [
        "12.5",
        "8.0",
    ]


def test_a_method_of_compression_that_is_no_code_is_not_repeated(tmp_path: Path) -> None:
    assert "LossyImageCompressionMethod" not in _raw("LossyImageCompressionMethod", b"very lossy!!", tmp_path).lossy
    assert _raw("LossyImageCompressionMethod", b"ISO_10918_1 ", tmp_path).lossy["LossyImageCompressionMethod"] == [
        "ISO_10918_1"
    ]


@pytest.mark.parametrize("value", [b"inf\\inf ", b"nan\\0.2 ", b"0.2\\1e999"])
def test_an_endless_length_is_unknown(value: bytes, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert _raw("ImagerPixelSpacing", value, tmp_path).imager_pixel_spacing == ()
