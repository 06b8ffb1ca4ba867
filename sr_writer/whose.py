"""Whose a stored image is and when it was taken, as results would say it: for a page, from as few bytes as say it."""

import warnings
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from pydicom.dataset import Dataset
from pydicom.filereader import read_partial
from pydicom.tag import BaseTag, Tag

from sr_writer.errors import SourceUnreadable
from sr_writer.source import UNREADABLE, Values, _patient_and_study, value_text

SAID: Final = (
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyDate", "StudyTime",
)  # fmt: skip
TEXT_MAX: Final = 1_024  # characters of a value; what is longer ends in CUT, and is nobody's number
CUT: Final = "…"
_LAST: Final = max(map(Tag, SAID))
_BEFORE_PIXELS: Final = Tag(0x7FDF, 0xFFFF)
_NAMING: Final = ("PatientName", "PatientID")


def read_whose(path: Path) -> dict[str, str]:
    """SAID, "" where the image does not say. Raises SourceUnreadable when it is not DICOM."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom's warnings quote values
        ds = _until(path, _LAST)
        if not all(keyword in ds for keyword in _NAMING):  # elements of a dirty header may stand in any order
            ds = _until(path, _BEFORE_PIXELS)
        inherited = _patient_and_study(Values(ds), "")
        return {keyword: _bounded(value_text(inherited, keyword)) for keyword in SAID}


def is_whose(said: object) -> bool:
    """Whether this is what `read_whose` gives: from a process that believes nothing of who read it."""
    if not isinstance(said, Mapping):
        return False
    texts = [said.get(keyword) for keyword in SAID]
    return all(isinstance(text, str) and len(text) <= TEXT_MAX + len(CUT) and _is_encodable(text) for text in texts)


def _is_encodable(text: str) -> bool:
    """Whether it can be written down: a lone surrogate, which JSON can say, fails wherever it comes to."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _until(path: Path, last: BaseTag) -> Dataset:
    try:
        with path.open("rb") as file:
            return read_partial(file, stop_when=_beyond(last), force=True, specific_tags=list(map(Tag, SAID)))
    except (*UNREADABLE, zlib.error) as error:
        raise SourceUnreadable(f"a stored source cannot be read ({type(error).__name__})") from None


def _beyond(last: BaseTag) -> Callable[[BaseTag, str | None, int], bool]:
    return lambda tag, vr, length: tag > last


def _bounded(text: str) -> str:
    return text if len(text) <= TEXT_MAX else text[:TEXT_MAX] + CUT
