"""Result objects are the bytes that pydicom's writer would give."""

from io import BytesIO

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.charset import default_encoding
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.uid import ComprehensiveSRStorage, ExplicitVRLittleEndian

from sr_writer.encode import CannotEncode, as_file, encoded

PLAIN = st.text(st.characters(codec="ascii", categories=("L", "N", "Zs")), max_size=16).map(str.strip)
NAMES = st.sampled_from(["", "Doe^Jane", "Jäger^Éva^^Dr", "Odd"])


def by_pydicom(ds: Dataset) -> bytes:
    buffer = DicomBytesIO()
    buffer.is_implicit_VR, buffer.is_little_endian = False, True
    write_dataset(buffer, ds, default_encoding)
    return buffer.getvalue()


@st.composite
def data_sets(draw: st.DrawFn, depth: int = 2) -> Dataset:
    ds = Dataset()
    ds.SpecificCharacterSet = draw(st.sampled_from(["ISO_IR 192", "ISO_IR 100"]))
    ds.SeriesDescription = draw(PLAIN | st.just("Größe"))
    ds.PatientName = draw(NAMES)
    ds.StudyInstanceUID = draw(st.sampled_from(["1.2", "1.23", ""]))
    ds.TextValue, ds.Modality = draw(PLAIN | st.just("a" * 70_001)), draw(st.sampled_from(["SR", "ODD", ""]))
    ds.ImageType = draw(st.lists(st.sampled_from(["ORIGINAL", "X"]), max_size=3))
    ds.SeriesNumber, ds.SliceThickness = draw(st.integers(0, 999)), draw(st.none() | st.just("1.25"))
    ds.Rows, ds.ContentDate = draw(st.integers(0, 65_535)), draw(st.sampled_from(["20261121", None]))
    ds.EncapsulatedDocument = draw(st.binary(max_size=5))
    if depth:
        ds.ContentSequence = draw(st.lists(data_sets(depth - 1), max_size=3))
    return ds


@given(data_sets())
def test_the_bytes_are_those_that_pydicom_writes(ds: Dataset) -> None:
    assert encoded(ds) == by_pydicom(ds)


def test_an_item_that_was_read_from_a_file_keeps_its_bytes() -> None:
    read = dcmread(BytesIO(b"\x08\x00\x50\x00SH\x06\x00A1    \x10\x00\x40\x00CS\x02\x00F "), force=True)
    ds = Dataset()
    ds.ReferencedRequestSequence = [read]
    assert b"A1    " in encoded(ds)
    assert encoded(ds) == by_pydicom(ds)


def test_an_undecided_vr_is_left_to_pydicom() -> None:
    ds = Dataset()
    ds.SOPClassUID, ds.SOPInstanceUID = ComprehensiveSRStorage, "1.2.3"
    ds.PixelRepresentation, ds.SmallestImagePixelValue = 0, 5
    with pytest.raises(CannotEncode):
        encoded(ds)
    found = dcmread(BytesIO(as_file(ds, meta(ds))))
    assert found["SmallestImagePixelValue"].VR == "US"
    assert found.SmallestImagePixelValue == 5


def test_a_file_is_the_one_that_pydicom_writes() -> None:
    ds = Dataset()
    ds.SOPClassUID, ds.SOPInstanceUID, ds.PatientID = ComprehensiveSRStorage, "1.2.3", "odd"
    buffer, plain = BytesIO(), Dataset(ds)
    plain.file_meta = meta(ds)
    plain.save_as(buffer, enforce_file_format=True, implicit_vr=False, little_endian=True)
    assert as_file(ds, meta(ds)) == buffer.getvalue()


def meta(ds: Dataset) -> FileMetaDataset:
    made = FileMetaDataset()
    made.MediaStorageSOPClassUID, made.MediaStorageSOPInstanceUID = ds.SOPClassUID, ds.SOPInstanceUID
    made.TransferSyntaxUID, made.ImplementationClassUID = ExplicitVRLittleEndian, "1.2.4"
    made.ImplementationVersionName = "ODD"
    return made
