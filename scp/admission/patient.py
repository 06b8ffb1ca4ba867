"""Whose an instance is, as a keyed digest that tells patients apart and names none.

Two halves: the Patient ID's, and that of name and birth date. Where both of two instances have a Patient ID, that
alone decides: names are spelled, transliterated and corrected, and a hold for a spelling would delay an alarm. Where
one has none, name and birth date together decide. IssuerOfPatientID is left out: archives add it on the way, so that
the same image with and without it is common, while one study with the same id from two issuers is not.

Text is compared decoded by SpecificCharacterSet, in Unicode's compatibility form (NFKC), without padding: the same
patient in Latin-1 and in UTF-8, or in half-width and full-width katakana, is one patient. Of a name only the first
component group that is filled in counts, without letter case and empty trailing components (PS3.5 6.2).
"""

import unicodedata
import warnings
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Final

from pydicom.charset import convert_encodings, decode_bytes

from ledger.standing import PATIENT_HALF, UNKNOWN_HALF
from scp.admission.structure import PATIENT_BIRTH_DATE, PATIENT_ID, PATIENT_NAME, SPECIFIC_CHARACTER_SET

_DELIMITERS: Final = {0x09, 0x0A, 0x0C, 0x0D, 0x5E, 0x3D}  # after which a code extension starts anew (PS3.5 6.1.2.5.3)


def patient_digest(values: Mapping[int, bytes], digest: Callable[..., str]) -> str:
    """From raw values. digest: `Ledger.patient_digest`. Empty where the header does not say who the patient is."""
    encodings = values.get(SPECIFIC_CHARACTER_SET, b"")
    number = _plain(values.get(PATIENT_ID, b""), encodings)
    name = _name(values.get(PATIENT_NAME, b""), encodings)
    born = _plain(values.get(PATIENT_BIRTH_DATE, b""), encodings).replace(".", "")  # DA, and its form before 1993
    if not number and not name:
        return ""
    halves = (digest("id", number) if number else UNKNOWN_HALF, digest("name", name, born) if name else UNKNOWN_HALF)
    return "".join(half[:PATIENT_HALF] for half in halves)


@lru_cache(64)
def _encodings(raw: bytes) -> list[str]:
    terms = [term.strip() for term in raw.decode("ascii", "replace").strip(" \0").split("\\")]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they quote values
        try:
            return list(convert_encodings(terms))
        except (LookupError, ValueError):
            return ["latin-1"]


def _text(raw: bytes, encodings: bytes) -> str:
    if raw.isascii() and b"\x1b" not in raw:
        return raw.decode("ascii")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            # Undeclared bytes beyond ASCII are most often Latin-1, and equal bytes stay equal in any case.
            declared = _encodings(encodings) if encodings.strip(b" \0") else ["latin-1"]
            decoded = str(decode_bytes(raw, declared, _DELIMITERS))
        except (LookupError, ValueError):
            decoded = "\ufffd"
    return raw.decode("latin-1") if "\ufffd" in decoded else decoded  # two that cannot be read are not one


def _plain(raw: bytes, encodings: bytes) -> str:
    return unicodedata.normalize("NFKC", _text(raw, encodings)).strip(" \0")


def _name(raw: bytes, encodings: bytes) -> str:
    groups = _plain(raw, encodings).split("=")
    components = ([" ".join(part.split()) for part in group.split("^")] for group in groups)
    return next((found for group in components if (found := "^".join(group).rstrip("^").casefold())), "")
