"""What is to become of a stored instance: analysed, or kept for one of three reasons.

Own results come first, then what is no image at all, then priors. Only the header is asked.
"""

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta, timezone
from functools import lru_cache
from typing import Final

from config.settings import Settings
from ledger.records import Disposition
from scp.admission.structure import (
    MANUFACTURER,
    MANUFACTURER_MODEL_NAME,
    SOP_CLASS_UID,
    STUDY_DATE,
    STUDY_TIME,
    TIMEZONE_OFFSET_FROM_UTC,
    text,
)
from scp.uids import is_below

_STORAGE: Final = "1.2.840.10008.5.1.4.1.1."
# Families of storage SOP classes that hold no image for a model to read: a class is one of these or lies below one.
# Everything else, private classes included, counts as an image, and the gate of a model package has the next word.
NOT_IMAGES: Final = (
    *(_STORAGE + branch for branch in ("8", "9", "129")),  # standalone overlays and curves, waveforms
    *(_STORAGE + branch for branch in ("10", "11")),  # standalone LUTs, presentation states
    _STORAGE + "4.2",  # MR spectroscopy
    _STORAGE + "66",  # raw data, registrations, fiducials, segmentations, tractography
    *(_STORAGE + branch for branch in ("67", "68")),  # real world value mappings, surface scans
    _STORAGE + "77.1.5.3",  # stereometric relationship
    *(_STORAGE + branch for branch in ("78", "79", "80")),  # ophthalmic measurements and reports
    *(_STORAGE + branch for branch in ("88", "90", "91")),  # SR, key objects, assessments, bulk annotations
    _STORAGE + "104",  # encapsulated documents and models
    *(_STORAGE + branch for branch in ("131", "200", "501.3")),  # displays, protocols, threat reports
    *(_STORAGE + f"481.{n}" for n in (*range(2, 23), 25)),  # radiotherapy, except RT images (481.1, .23, .24)
    "1.2.840.10008.5.1.4.34",  # radiotherapy delivery instructions
    "1.2.840.10008.5.1.1.27",  # stored print
)
SECONDARY_CAPTURE: Final = _STORAGE + "7"  # and its multi-frame relatives: what our own pictures are

_DATE = re.compile(r"(\d{4})(\d{2})(\d{2})|(\d{4})\.(\d{2})\.(\d{2})")  # DA, and its form before 1993
_TIME = re.compile(r"(\d{2})(?::?(\d{2})(?::?(\d{2})(?:\.\d{1,6})?)?)?")  # TM, and its form before 1993
_OFFSET = re.compile(r"([+-])(\d{2})(\d{2})")


@lru_cache(256)
def is_image_class(sop_class_uid: str) -> bool:
    return not any(is_below(sop_class_uid, family) for family in NOT_IMAGES)


def disposition_of(values: Mapping[int, bytes], settings: Settings, received_at: datetime) -> Disposition:
    """Decide from the top-level raw values. received_at: aware."""
    sop_class_uid = text(values, SOP_CLASS_UID)
    image = is_image_class(sop_class_uid)
    if _is_ours(values, settings) and (not image or is_below(sop_class_uid, SECONDARY_CAPTURE)):
        return Disposition.OWN_RESULT
    if not image:
        return Disposition.NOT_AN_IMAGE
    taken_at = study_moment(text(values, STUDY_DATE), text(values, STUDY_TIME), text(values, TIMEZONE_OFFSET_FROM_UTC))
    if taken_at is not None and received_at - taken_at > timedelta(hours=settings.study.triage_max_age_h):
        return Disposition.PRIOR
    return Disposition.ANALYSE


def _is_ours(values: Mapping[int, bytes], settings: Settings) -> bool:
    """Equipment names as the result writer sets them. Never enough alone: an acquired image is analysed whoever
    claims to have made it."""
    return (text(values, MANUFACTURER), text(values, MANUFACTURER_MODEL_NAME)) == (
        settings.report.manufacturer,
        settings.report.model_name,
    )


@lru_cache(64)
def study_moment(date: str, time: str, offset: str) -> datetime | None:
    """When a study began, in UTC; None without a date that can be read.

    Without a time that can be read it is the last second of that day; without an offset the node's own zone holds.
    """
    match = _DATE.fullmatch(date)
    if match is None:
        return None
    year, month, day = (int(part) for part in match.groups() if part is not None)
    try:
        local = datetime(year, month, day, *_clock(time), tzinfo=_zone(offset))
        return local.astimezone(UTC) if local.tzinfo else local.astimezone().astimezone(UTC)
    except (ValueError, OverflowError, OSError):
        return None


def _clock(time: str) -> tuple[int, int, int]:
    match = _TIME.fullmatch(time)
    if match is None:
        return 23, 59, 59
    hour, minute, second = (int(part or 0) for part in match.groups())
    if hour > 23 or minute > 59 or second > 60:
        return 23, 59, 59
    return hour, minute, min(second, 59)  # a leap second is written 60


def _zone(offset: str) -> timezone | None:
    match = _OFFSET.fullmatch(offset)
    if match is None:
        return None
    minutes = int(match[2]) * 60 + int(match[3])
    if minutes > 14 * 60:
        return None
    return timezone(timedelta(minutes=-minutes if match[1] == "-" else minutes))
