"""C-FIND (Study Root, PS3.4 C.4.1): one query, and what became of it."""

import time
from typing import Final

from pydicom.dataset import Dataset
from pynetdicom.association import Association

from config.settings import Destination
from sr_writer.association import BrokeOff, NotOffered
from sr_writer.bounded_socket import reason_of
from sr_writer.errors import Unreachable

STUDY_ROOT_FIND: Final = "1.2.840.10008.5.1.4.1.2.2.1"
_PENDING: Final = frozenset({0xFF00, 0xFF01})
_LATER: Final = frozenset({0x0110, 0x0213, 0xA700})
_ANSWERS_MAX: Final = 10_000
_TIMES_AS_LONG: Final = 5  # all answers together


def matches(association: Association, destination: Destination, identifier: Dataset, timeout_s: float) -> list[Dataset]:
    """What the destination answers. Raises NotOffered, Unreachable, and BrokeOff where it broke off at the request.

    timeout_s: for one answer; all together may take five times as long.
    """
    began = time.monotonic()
    if not association.is_established:
        raise Unreachable(f"{destination.key} broke off while it was asked what it holds.")
    found: list[Dataset] = []
    for count, (answered, match) in enumerate(association.send_c_find(identifier, STUDY_ROOT_FIND)):
        status = answered.get("Status")
        if status in _PENDING:
            if count >= _ANSWERS_MAX:
                association.abort()
                raise NotOffered(f"{destination.key} answers a query without end.")
            if time.monotonic() - began > _TIMES_AS_LONG * timeout_s:
                association.abort()
                raise Unreachable(f"{destination.key} came to no end when it was asked what it holds.")
            if match is not None:
                found.append(match)
            continue
        if status is None and (cut_off := reason_of(association)):
            raise Unreachable(f"{destination.key} {cut_off} when it was asked what it holds.")
        if status is None and time.monotonic() - began < timeout_s:
            raise BrokeOff(f"{destination.key} broke off while it was asked what it holds.")
        _check_last(status, destination)
    return found


def _check_last(status: int | None, destination: Destination) -> None:
    if status is None:
        raise Unreachable(f"{destination.key} did not answer when it was asked what it holds.")
    if status in _LATER:
        raise Unreachable(f"{destination.key} cannot answer a query now (0x{status:04X}).")
    if status != 0x0000:
        raise NotOffered(f"{destination.key} refused a query for what it holds (0x{status:04X}).")
