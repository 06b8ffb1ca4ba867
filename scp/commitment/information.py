"""The data sets of N-ACTION and N-EVENT-REPORT: read within limits, and written."""

import warnings
from collections.abc import Callable
from io import BytesIO
from typing import TypeVar

from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filereader import read_dataset
from pydicom.filewriter import write_dataset

from scp.admission.structure import Limits, walk
from scp.network.contexts import IMPLICIT_LITTLE

T = TypeVar("T")


def read_information(data: bytes, transfer_syntax_uid: str, limits: Limits, take: Callable[[Dataset], T]) -> T:
    """What `take` makes of a data set from a stranger, which is walked within the limits before it is parsed.

    Values are read when they are asked for: whatever is raised may quote one, and so may pydicom's warnings, which
    nobody hears.
    """
    walk(data, transfer_syntax_uid, limits)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return take(read_dataset(BytesIO(data), transfer_syntax_uid == IMPLICIT_LITTLE, is_little_endian=True))


def encode_information(information: Dataset, transfer_syntax_uid: str) -> bytes:
    """Explicit or Implicit VR Little Endian."""
    file = DicomBytesIO()
    file.is_little_endian, file.is_implicit_VR = True, transfer_syntax_uid == IMPLICIT_LITTLE
    write_dataset(file, information)
    return file.getvalue()
