"""Ask a destination what it holds: C-FIND (Study Root, IMAGE level, PS3.4 C.4.1) and QIDO-RS (PS3.18 10.6).

An answer counts only when it names the very SOP Instance UID. What a list query does not name is asked for alone
before it is called missing: not every archive matches a list of UIDs.
"""

import json
import ssl
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from http.client import HTTPException
from itertools import groupby
from typing import Any

from pydicom.dataset import Dataset
from pynetdicom.association import Association

from config.settings import DeliverSettings, Destination
from sr_writer.association import NotOffered, asking, insisting
from sr_writer.errors import Unreachable
from sr_writer.find import STUDY_ROOT_FIND, matches
from sr_writer.http_opener import opener

_BODY_MAX_BYTES = 4 * 1024 * 1024
_SOP_INSTANCE_UID = "00080018"


@dataclass(frozen=True, order=True)
class Wanted:
    """One object that a destination accepted."""

    study_instance_uid: str
    series_instance_uid: str
    sop_instance_uid: str


Ask = Callable[[Destination, DeliverSettings, Sequence[Wanted]], set[str]]


def find(destination: Destination, settings: DeliverSettings, wanted: Sequence[Wanted]) -> set[str]:
    """The SOP Instance UIDs of `wanted` that the destination lists by C-FIND. Raises NotOffered, Unreachable."""

    def ask() -> set[str]:
        found: set[str] = set()
        with asking(destination, settings, STUDY_ROOT_FIND) as association:
            for series in _by_series(wanted):
                uids = [one.sop_instance_uid for one in series]
                found |= _query(association, destination, series[0], uids, settings.response_timeout_s)
                if len(uids) > 1:
                    for uid in set(uids) - found:
                        found |= _query(association, destination, series[0], [uid], settings.response_timeout_s)
        return found

    return insisting(ask, destination, "what it holds (C-FIND)") & {one.sop_instance_uid for one in wanted}


def _by_series(wanted: Iterable[Wanted]) -> Iterator[list[Wanted]]:
    ordered = sorted(wanted)
    for _, series in groupby(ordered, key=lambda one: (one.study_instance_uid, one.series_instance_uid)):
        yield list(series)


def _query(
    association: Association, destination: Destination, series: Wanted, uids: Sequence[str], timeout_s: float
) -> set[str]:
    identifier = Dataset()
    identifier.QueryRetrieveLevel = "IMAGE"
    identifier.StudyInstanceUID = series.study_instance_uid
    identifier.SeriesInstanceUID = series.series_instance_uid
    identifier.SOPInstanceUID = list(uids) if len(uids) > 1 else uids[0]
    found = matches(association, destination, identifier, timeout_s)
    return {str(match.SOPInstanceUID) for match in found if "SOPInstanceUID" in match}


def qido(destination: Destination, settings: DeliverSettings, wanted: Sequence[Wanted]) -> set[str]:
    """The SOP Instance UIDs of `wanted` that `destination.qido_url` lists. Raises NotOffered, Unreachable.

    A series of ours is small: it is asked for whole, so that no server needs to match a list of UIDs.
    """
    if not destination.qido_url:
        raise NotOffered(f"{destination.key} has no qido_url in the settings.")
    found: set[str] = set()
    for series in _by_series(wanted):
        one = series[0]
        path = f"studies/{one.study_instance_uid}/series/{one.series_instance_uid}/instances"
        found |= _listed(_get(f"{destination.qido_url.rstrip('/')}/{path}", destination, settings), destination)
    return found & {one.sop_instance_uid for one in wanted}


def _get(address: str, destination: Destination, settings: DeliverSettings) -> bytes:
    if not address.startswith(("http://", "https://")):
        raise NotOffered(f"the qido_url of {destination.key} is not an http or https address.")
    asked = urllib.request.Request(address, headers={"Accept": "application/dicom+json"})  # noqa: S310  checked above
    try:
        with opener().open(asked, timeout=settings.response_timeout_s) as answer:
            body: bytes = answer.read(_BODY_MAX_BYTES + 1)
    except urllib.error.HTTPError as error:
        if error.code in (408, 429) or error.code >= 500:
            raise Unreachable(f"{destination.key} cannot answer a QIDO-RS query now (HTTP {error.code}).") from None
        raise NotOffered(
            f"{destination.key} does not answer QIDO-RS queries at its qido_url (HTTP {error.code})."
        ) from None
    except (OSError, HTTPException, ValueError) as error:
        if isinstance(getattr(error, "reason", None), ssl.SSLCertVerificationError):
            raise NotOffered(f"the certificate at the qido_url of {destination.key} is not trusted here.") from None
        raise Unreachable(f"no answer from the qido_url of {destination.key}: check address and network.") from None
    if len(body) > _BODY_MAX_BYTES:
        raise NotOffered(f"{destination.key} answers a QIDO-RS query without end.")
    return body


def _listed(body: bytes, destination: Destination) -> set[str]:
    """SOP Instance UIDs of a DICOM JSON answer (PS3.18 F.2); no body is an empty list."""
    if not body.strip():
        return set()
    try:
        listed = json.loads(body)
        return {uid for item in listed for uid in _values(item)}
    except (ValueError, TypeError, AttributeError, RecursionError):
        raise NotOffered(f"{destination.key} answers a QIDO-RS query with something else than DICOM JSON.") from None


def _values(item: dict[str, Any]) -> list[str]:
    return [str(value) for value in item.get(_SOP_INSTANCE_UID, {}).get("Value", [])]
