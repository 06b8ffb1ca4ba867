"""What `opentriage probe-pacs` does on the network: send a probe's study, then ask what became of it.

One association for the images and one for the results, which leave as the node's own results do. Then the peer is asked
in every way a destination can be asked to prove.
"""

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from hashlib import sha256
from pathlib import Path

from config import Settings
from config.settings import DeliverSettings, Destination, ProfileName
from ledger.delivery_records import DeliveryOutcome, DeliveryState
from ledger.records import ResultObject, StoredObject, TriagePriority
from ledger.store import Store
from node.trying.sending import NoAssociation
from sr_writer import commitment, profiles, read_back
from sr_writer.association import NotOffered
from sr_writer.deliver import Sender
from sr_writer.errors import Unreachable
from sr_writer.identity import uid_from
from sr_writer.probe_study import SOURCE, STUDY_UID, probe_objects
from sr_writer.profiles import PROFILES
from sr_writer.statuses import class_name

_LOW = 2  # (0000,0700), PS3.7 9.3.1.1
_LISTS_WITHIN_S = 10.0  # an archive may file what it accepted a little later
_BETWEEN_S = 1.0


class Found(StrEnum):
    """What the peer says of one object, whichever way it was asked."""

    NOT_ASKED = "not asked"  # it was not stored
    YES = "found"
    NO = "not found"
    UNPROVABLE = "unprovable"  # it offers no way of asking, or commits on an association to the node itself
    UNKNOWN = "unknown"  # it offers one and did not answer


@dataclass(frozen=True)
class Row:
    """What became of one object. context: how its SOP class was negotiated; status: of the C-STORE-RSP."""

    kind: str
    sop_class_uid: str
    needed: str
    context: str
    accepted: bool = False
    status: int | None = None
    stored: bool = False
    remark: str = ""
    found: Found = Found.NOT_ASKED
    how: str = ""

    @property
    def is_good(self) -> bool:
        return self.accepted and self.stored and self.found in (Found.YES, Found.UNPROVABLE)


@dataclass(frozen=True)
class Asked:
    """One way of asking. uids: what the peer holds; None: it offers no such way, or did not answer; `words` says it."""

    name: str
    uids: frozenset[str] | None
    words: str
    offered: bool


@dataclass(frozen=True)
class Probed:
    """The whole answer."""

    rows: tuple[Row, ...]
    asked: tuple[Asked, ...]
    lacking: tuple[str, ...]  # kinds that the profile needs and that did not get through, in words


def needed(profile: ProfileName, localization: str) -> Mapping[str, str]:
    """What a destination of this profile gets without wishes of its own: kind -> yes; else why it may get it."""
    row = PROFILES[profile]
    if row.boxes_only and localization != "box":
        return {**needed(profile, "box"), profiles.MEASUREMENT_SR: "if boxes are on"}
    always = {profiles.SECONDARY_CAPTURE, profiles.MEASUREMENT_SR, profiles.TEXT_SR, profiles.SEGMENTATION}
    always |= {profiles.KEY_OBJECTS} if row.key_objects else set()
    return {kind: "yes" if kind in always else "if wished" for kind in row.sop_classes()}


def probe(destination: Destination, settings: Settings, on_step: Callable[[str], None]) -> Probed:
    """Send and ask. settings: what the site sends, and how long it waits. on_step: told what is being done.

    Raises NoAssociation when nothing could be sent at all.
    """
    with tempfile.TemporaryDirectory(prefix="opentriage-probe-") as folder:
        on_step("making the probe's study")
        store = Store(Path(folder) / "store")
        objects = probe_objects(store.root)
        on_step("sending")
        wanted = needed(destination.profile, settings.report.localization)
        rows = [row for part in _parts(objects) for row in _send(destination, settings.deliver, part, store, wanted)]
        on_step("asking what it holds")
        kept = [one for one, row in zip(objects, rows, strict=True) if row.stored]
        asked = _ask(destination, settings.deliver, kept) if kept else ()
    rows = [_judged(row, one, asked) for one, row in zip(objects, rows, strict=True)]
    return Probed(tuple(rows), asked, tuple(_lacking(rows, wanted)))


def _parts(objects: Sequence[ResultObject]) -> Iterator[list[ResultObject]]:
    """The node itself never sends images: a peer that will not have them is asked for the rest on its own."""
    yield [one for one in objects if one.kind == SOURCE]
    yield [one for one in objects if one.kind != SOURCE]


def _send(
    destination: Destination,
    settings: DeliverSettings,
    objects: Sequence[ResultObject],
    store: Store,
    wanted: Mapping[str, str],
) -> list[Row]:
    """A row for each. Raises NoAssociation when nothing could be sent at all."""
    stored = [_stored(number, one, store) for number, one in enumerate(objects)]
    outcomes: dict[int, DeliveryOutcome] = {}
    try:
        Sender(destination, settings, priority=_LOW).send(
            stored, store, lambda outcome: outcomes.update({outcome.object_id: outcome})
        )
    except Unreachable as error:
        raise NoAssociation(str(error)) from None
    if all(not outcome.context for outcome in outcomes.values()):  # rejected as a whole
        raise NoAssociation(next(outcome.reason for outcome in outcomes.values()))
    return [_row(one, outcomes[number], destination.profile, wanted) for number, one in enumerate(objects)]


def _stored(number: int, one: ResultObject, store: Store) -> StoredObject:
    """As delivery sees it, in no choice: every class is tried."""
    digest = sha256(one.content).hexdigest()
    return StoredObject(
        object_id=number,
        kind=one.kind,
        sop_class_uid=one.sop_class_uid,
        sop_instance_uid=one.sop_instance_uid,
        transfer_syntax_uid=one.transfer_syntax_uid,
        sha256=digest,
        path=store.put("objects", digest, ".dcm", one.content),
        priority=TriagePriority.LOW,
    )


def _row(one: ResultObject, outcome: DeliveryOutcome, profile: ProfileName, wanted: Mapping[str, str]) -> Row:
    sent = one.kind in wanted and one.sop_class_uid in PROFILES[profile].sop_classes()[one.kind]
    refused = outcome.state is DeliveryState.REFUSED and outcome.status is None
    return Row(
        one.kind,
        one.sop_class_uid,
        wanted[one.kind] if sent else "no",
        outcome.context.rpartition(", ")[2] or "not tried",
        accepted=bool(outcome.context) and not refused,
        status=outcome.status,
        stored=outcome.state is DeliveryState.DELIVERED,
        remark="" if refused else outcome.reason,
    )


# --- what it holds ---


def _ask(destination: Destination, settings: DeliverSettings, kept: Sequence[ResultObject]) -> tuple[Asked, ...]:
    wanted = [read_back.Wanted(STUDY_UID, one.series_instance_uid, one.sop_instance_uid) for one in kept]
    asked = [_read_back("C-FIND", read_back.find, destination, settings, wanted)]
    if destination.qido_url:
        asked.append(_read_back("QIDO-RS", read_back.qido, destination, settings, wanted))
    return (*asked, _commitment(destination, settings, kept))


def _read_back(
    name: str,
    ask: read_back.Ask,
    destination: Destination,
    settings: DeliverSettings,
    wanted: Sequence[read_back.Wanted],
) -> Asked:
    until = time.monotonic() + _LISTS_WITHIN_S
    try:
        while len(found := ask(destination, settings, wanted)) < len(wanted) and time.monotonic() < until:
            time.sleep(_BETWEEN_S)
    except NotOffered as error:
        return Asked(name, None, str(error), offered=False)
    except Unreachable as error:
        return Asked(name, None, str(error), offered=True)
    return Asked(name, frozenset(found), f"lists {len(found)} of {len(wanted)}", offered=True)


def _commitment(destination: Destination, settings: DeliverSettings, kept: Sequence[ResultObject]) -> Asked:
    name = "Storage Commitment"
    named = [(one.sop_class_uid, one.sop_instance_uid) for one in kept]
    transaction = uid_from("probe", "transaction", str(time.time_ns()))
    try:
        answer = commitment.request(destination, settings, transaction, named, settings.commitment_wait_s, lambda: None)
    except NotOffered as error:
        return Asked(name, None, str(error), offered=False)
    except Unreachable as error:
        return Asked(name, None, str(error), offered=True)
    if answer is None:
        words = "takes the request; its answer goes to the node of this AE title, not to the probe"
        return Asked(name, None, words, offered=False)
    held = frozenset(answer.committed)
    return Asked(name, held, f"commits to {len(held)} of {len(named)}", offered=True)


def _judged(row: Row, one: ResultObject, asked: Sequence[Asked]) -> Row:
    if not row.stored:
        return row
    holding = [way.name for way in asked if way.uids is not None and one.sop_instance_uid in way.uids]
    if holding:
        return replace(row, found=Found.YES, how=", ".join(holding))
    missing = [way.name for way in asked if way.uids is not None]
    if missing:
        return replace(row, found=Found.NO, how=", ".join(missing))
    return replace(row, found=Found.UNKNOWN if any(way.offered for way in asked) else Found.UNPROVABLE)


def _lacking(rows: Sequence[Row], wanted: Mapping[str, str]) -> Iterator[str]:
    """Of each kind that the profile needs one class must have got through."""
    for kind, need in wanted.items():
        tried = [row for row in rows if row.kind == kind and row.needed == "yes"]
        if need == "yes" and not any(row.is_good for row in tried):
            classes = " or ".join(class_name(row.sop_class_uid) for row in tried)
            yield f"{kind.replace('_', ' ')} ({classes})"
