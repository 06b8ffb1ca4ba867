"""Which presentation contexts the node accepts: one table, built once.

Preference among several proposed transfer syntaxes is ours: uncompressed, then lossless, then lossy, then video.
Only syntaxes whose bytes can be kept as they came are here: not JPIP (the pixels stay elsewhere), MIME, XML, SMPTE
streams or Papyrus.
"""

from collections.abc import Mapping
from typing import Final

from pydicom._uid_dict import UID_dictionary
from pynetdicom.sop_class import _STORAGE_CLASSES

from config.settings import ReceiveSettings
from scp.uids import is_below

VERIFICATION: Final = "1.2.840.10008.1.1"
COMMITMENT_PUSH_MODEL: Final = "1.2.840.10008.1.20.1"  # PS3.4 J.3: senders ask us, destinations that we ask answer
_LE: Final = "1.2.840.10008.1.2"
_JPEG: Final = _LE + ".4."

EXPLICIT_LITTLE: Final = _LE + ".1"
IMPLICIT_LITTLE: Final = _LE
UNCOMPRESSED: Final = (EXPLICIT_LITTLE, IMPLICIT_LITTLE, _LE + ".1.98")
LOSSLESS: Final = (
    *(_JPEG + n for n in ("80", "90")),  # JPEG-LS, JPEG 2000
    _LE + ".5",  # RLE
    *(_JPEG + n for n in ("70", "57")),  # JPEG process 14
    *(_JPEG + n for n in ("201", "202", "110", "92", "58", "65", "66")),  # HTJ2K, JPEG XL, J2K part 2, retired JPEG
)
LOSSY: Final = tuple(
    _JPEG + n
    for n in (
        *("91", "81", "50", "51", "203", "112", "111", "93"),  # 91 and 203 may be lossless; JPEG-LS, JPEG, JPEG XL
        *("52", "53", "54", "55", "56", "59", "60", "61", "62", "63", "64"),  # retired JPEG processes
    )
)
VIDEO: Final = tuple(
    _JPEG + n
    for n in (
        *("100", "100.1", "101", "101.1", "102", "102.1", "103", "103.1"),
        *("104", "104.1", "105", "105.1", "106", "106.1", "107", "108"),
    )
)
DEFLATED: Final = (_LE + ".1.99", _LE + ".8.1")  # the data set; each frame
BIG_ENDIAN: Final = (_LE + ".2",)

# Storage without a patient, a study and a series (PS3.4 GG), media directories: nothing for this node.
_NOT_COMPOSITE: Final = ("1.2.840.10008.1.3.10", "1.2.840.10008.5.1.4.38", "1.2.840.10008.5.1.4.39",
                         "1.2.840.10008.5.1.4.43", "1.2.840.10008.5.1.4.44", "1.2.840.10008.5.1.4.45")  # fmt: skip
_NOT_COMPOSITE_CLASSES: Final = tuple(f"1.2.840.10008.5.1.4.1.1.{n}" for n in ("200.1", "200.3", "200.7", "201.1"))
_COMMITMENT: Final = "1.2.840.10008.1.20"


def storage_classes() -> tuple[str, ...]:
    """Every composite storage SOP class the two dictionaries know, retired and trial ones included, sorted."""
    known = set(map(str, _STORAGE_CLASSES.values()))
    for uid, (name, kind, *_rest) in UID_dictionary.items():
        if kind == "SOP Class" and "Storage" in name and not _is_other_storage(uid):
            known.add(uid)
    return tuple(sorted(known))


def _is_other_storage(uid: str) -> bool:
    families = any(is_below(uid, family) for family in (*_NOT_COMPOSITE, _COMMITMENT))
    return families or uid in _NOT_COMPOSITE_CLASSES


def transfer_syntaxes(settings: ReceiveSettings) -> tuple[str, ...]:
    """Accepted for storage, the most welcome first."""
    return (
        *UNCOMPRESSED,
        *(BIG_ENDIAN if settings.accept_big_endian else ()),
        *LOSSLESS,
        *(DEFLATED if settings.accept_deflated else ()),
        *LOSSY,
        *VIDEO,
    )


def negotiation_table(settings: ReceiveSettings) -> Mapping[str, tuple[str, ...]]:
    """Abstract syntax UID -> accepted transfer syntaxes in our order of preference."""
    storage = transfer_syntaxes(settings)
    table = dict.fromkeys((*storage_classes(), *settings.private_sop_classes), storage)
    table[VERIFICATION] = (EXPLICIT_LITTLE, IMPLICIT_LITTLE)
    return table
