"""What `opentriage probe-pacs` does on the network: send a probe's study, then ask what became of it.

One association for the images and one for the results, as `deliver` opens them: each SOP class in the one transfer
syntax in which the node writes it. Then the peer is asked in every way a destination can be asked to prove.
"""

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

from pydicom.uid import UID
from pynetdicom import AE, _config
from pynetdicom.association import Association
from pynetdicom.presentation import PresentationContext

from config.settings import DeliverSettings, Destination, ProfileName
from ledger.commitments import CommitmentAnswer
from ledger.errors import RetryableError
from ledger.records import DeliveryState, ResultObject
from sr_writer import commitment, profiles, read_back
from sr_writer.association import NotOffered
from sr_writer.errors import Unreachable
from sr_writer.identity import uid_from
from sr_writer.probe_study import SOURCE, STUDY_UID, probe_objects
from sr_writer.profiles import PROFILES
from sr_writer.statuses import class_name, rejection, sentence, state_of

_LOW = 2  # (0000,0700), PS3.7 9.3.1.1
_LISTS_WITHIN_S = 10.0  # an archive may file what it accepted a little later
_BETWEEN_S = 1.0
_REFUSALS = {1: "refused by the user", 2: "refused", 3: "class refused", 4: "transfer syntax refused"}
_config.STORE_SEND_CHUNKED_DATASET = True  # the file's bytes, not a data set written anew


class NoAssociation(RetryableError):
    """The peer could not be reached or refused the association."""


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


def needed(profile: ProfileName) -> Mapping[str, str]:
    """What a destination of this profile gets without wishes of its own: kind -> yes; else why it may get it."""
    row = PROFILES[profile]
    always = {profiles.SECONDARY_CAPTURE, profiles.MEASUREMENT_SR, profiles.TEXT_SR, profiles.SEGMENTATION}
    always |= {profiles.KEY_OBJECTS} if row.key_objects else set()
    return {kind: "yes" if kind in always else "if wished" for kind in row.sop_classes()}


def probe(destination: Destination, settings: DeliverSettings, on_step: Callable[[str], None]) -> Probed:
    """Send and ask. on_step: told what is being done. Raises NoAssociation when nothing could be sent at all."""
    with tempfile.TemporaryDirectory(prefix="opentriage-probe-") as folder:
        on_step("making the probe's study")
        objects = probe_objects(Path(folder) / "store")
        files = _written(objects, Path(folder))
        on_step("sending")
        rows = [row for part in _parts(objects) for row in _Sender(destination, settings).send(part, files)]
        on_step("asking what it holds")
        kept = [one for one, row in zip(objects, rows, strict=True) if row.stored]
        asked = _ask(destination, settings, kept) if kept else ()
    rows = [_judged(row, one, asked) for one, row in zip(objects, rows, strict=True)]
    return Probed(tuple(rows), asked, tuple(_lacking(rows, destination.profile)))


def _parts(objects: Sequence[ResultObject]) -> Iterator[list[ResultObject]]:
    """The node itself never sends images: a peer that will not have them is asked for the rest on its own."""
    yield [one for one in objects if one.kind == SOURCE]
    yield [one for one in objects if one.kind != SOURCE]


def _written(objects: Sequence[ResultObject], folder: Path) -> dict[str, Path]:
    files = {one.sop_instance_uid: folder / f"{i:02}.dcm" for i, one in enumerate(objects)}
    for one in objects:
        files[one.sop_instance_uid].write_bytes(one.content)
    return files


class _Sender:
    """Sends one part of the study."""

    def __init__(self, destination: Destination, settings: DeliverSettings) -> None:
        self._destination = destination
        self._settings = settings
        self._association: Association | None = None
        self._contexts: dict[str, PresentationContext] = {}

    def send(self, objects: Sequence[ResultObject], files: Mapping[str, Path]) -> list[Row]:
        """A row for each. Raises NoAssociation when there is none at first."""
        self._open(objects)
        try:
            return [self._row(one, objects, files[one.sop_instance_uid]) for one in objects]
        finally:
            if self._association is not None and self._association.is_established:
                self._association.release()

    def _open(self, objects: Sequence[ResultObject]) -> None:
        ae = AE(ae_title=self._destination.calling_ae_title)
        ae.connection_timeout = ae.acse_timeout = self._settings.connect_timeout_s
        ae.dimse_timeout = ae.network_timeout = self._settings.response_timeout_s
        for sop_class, syntax in dict.fromkeys((one.sop_class_uid, one.transfer_syntax_uid) for one in objects):
            ae.add_requested_context(sop_class, syntax)
        peer = self._destination
        association = ae.associate(peer.host, peer.port, ae_title=peer.ae_title)
        if not association.is_established and not association.rejected_contexts:
            raise NoAssociation(_why(association, peer))
        self._association = association
        answered = [*association.accepted_contexts, *association.rejected_contexts]
        self._contexts = {str(context.abstract_syntax): context for context in answered}

    def _row(self, one: ResultObject, objects: Sequence[ResultObject], file: Path) -> Row:
        wanted = "no" if one.kind == SOURCE else needed(self._destination.profile).get(one.kind, "no")
        if wanted == "yes" and one.sop_class_uid not in PROFILES[self._destination.profile].sop_classes()[one.kind]:
            wanted = "no"
        context = self._contexts[one.sop_class_uid]
        if context.result != 0:
            return Row(one.kind, one.sop_class_uid, wanted, _REFUSALS.get(context.result or 2, "refused"))
        row = Row(one.kind, one.sop_class_uid, wanted, UID(one.transfer_syntax_uid).name, accepted=True)
        try:
            if self._association is None or not self._association.is_established:
                self._open(objects)
            status = self._store(file)
        except NoAssociation as error:
            return replace(row, remark=str(error))
        if status is None:
            return replace(row, remark="broke off or did not answer")
        stored = state_of(status) is DeliveryState.DELIVERED
        return replace(row, status=status, stored=stored, remark=sentence(status, one.sop_class_uid, self._destination))

    def _store(self, file: Path) -> int | None:
        assert self._association is not None
        try:
            response = self._association.send_c_store(file, priority=_LOW)
        except (ValueError, RuntimeError, AttributeError):  # it ended between two objects
            return None
        return int(response.Status) if "Status" in response else None


def _why(association: Association, peer: Destination) -> str:
    answer = association.acceptor.primitive
    if association.is_rejected and answer is not None:
        return rejection(int(answer.result_source or 0), int(answer.diagnostic or 0), peer)
    return f"no association with {peer.key}: check host, port and network, and that it is a DICOM service."


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
    held = _committed(answer)
    return Asked(name, held, f"commits to {len(held)} of {len(named)}", offered=True)


def _committed(answer: CommitmentAnswer) -> frozenset[str]:
    return frozenset(answer.committed)


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


def _lacking(rows: Sequence[Row], profile: ProfileName) -> Iterator[str]:
    """Of each kind that the profile needs one class must have got through."""
    for kind, wanted in needed(profile).items():
        tried = [row for row in rows if row.kind == kind and row.needed == "yes"]
        if wanted == "yes" and not any(row.is_good for row in tried):
            classes = " or ".join(class_name(row.sop_class_uid) for row in tried)
            yield f"{kind.replace('_', ' ')} ({classes})"
