"""A data set in Implicit VR Little Endian, for destinations that know nothing else (PS3.5 A.1)."""

from io import BytesIO

from pydicom.filebase import DicomBytesIO
from pydicom.filereader import read_dataset
from pydicom.filewriter import write_dataset


def in_implicit_vr(data: bytes) -> bytes:
    """The same elements with the same values. data: a data set in Explicit VR Little Endian, without group 0002."""
    ds = read_dataset(BytesIO(data), is_implicit_VR=False, is_little_endian=True)
    buffer = DicomBytesIO()
    buffer.is_implicit_VR, buffer.is_little_endian = True, True
    write_dataset(buffer, ds)
    return buffer.getvalue()
