"""A storage SCU for `send` and `demo`: files leave byte for byte in the transfer syntax they are stored in."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import TypeAdapter, ValidationError
from pydicom import dcmread
from pydicom.errors import InvalidDicomError
from pydicom.uid import UID
from pynetdicom import _config, build_context
from pynetdicom.association import Association

from config.settings import AE_TITLE_WANTED, AeTitle, DeliverSettings, OutgoingTls
from ledger.delivery_records import DeliveryState
from ledger.errors import RetryableError
from sr_writer.association import NotOffered, associate
from sr_writer.bounded_socket import reason_of
from sr_writer.errors import Unreachable
from sr_writer.statuses import DUPLICATE_SOP_INSTANCE, class_name, state_of

MAX_CONTEXTS = 126  # PS3.8 9.3.2.2: odd identifiers 1 to 255, less a few
CALLING_AE_TITLE = "OPENTRIAGE"
PLAIN = OutgoingTls()  # no TLS
REASONS = {1: "the user there refuses it", 3: "this class is not supported", 4: "this transfer syntax is not supported"}
_AE_TITLE: TypeAdapter[str] = TypeAdapter(AeTitle)
_TIMES = DeliverSettings()  # how long a connection and an answer are waited for
_config.STORE_SEND_CHUNKED_DATASET = True  # the file's bytes, not a data set written anew


class NoAssociation(RetryableError):
    """The peer could not be reached or refused the association."""


@dataclass(frozen=True)
class Peer:
    """An application entity, AE@HOST:PORT."""

    ae_title: str
    host: str
    port: int
    calling_ae_title: str = CALLING_AE_TITLE
    tls: OutgoingTls = PLAIN

    @property
    def key(self) -> str:
        """Its name in sentences."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.ae_title}@{host}:{self.port}"

    @classmethod
    def parse(cls, text: str, calling_ae_title: str = CALLING_AE_TITLE, tls: OutgoingTls = PLAIN) -> "Peer":
        """Raises ValueError with a sentence."""
        ae_title, at, address = text.rpartition("@")
        host, colon, port = address.rpartition(":")
        if not at or not colon or not host or not ae_title:
            raise ValueError(f"{text!r} is not AE@HOST:PORT, for example PACS@127.0.0.1:11112")
        if not port.isdecimal() or not 0 < int(port) < 65536:
            raise ValueError(f"{port!r} is not a port")
        for title in (ae_title, calling_ae_title):
            try:
                _AE_TITLE.validate_python(title)
            except ValidationError:
                raise ValueError(f"{title!r} is no AE title: {AE_TITLE_WANTED}") from None
        return cls(ae_title, host.strip("[]"), int(port), calling_ae_title, tls)


@dataclass(frozen=True)
class Item:
    """A file that can be sent as it is."""

    path: Path
    sop_class_uid: str
    transfer_syntax_uid: str
    study_instance_uid: str


@dataclass(frozen=True)
class Sent:
    """What became of one file. status: of the C-STORE-RSP; None when it was never sent."""

    path: Path
    status: int | None
    text: str

    @property
    def is_stored(self) -> bool:
        """Perhaps with a warning. A peer that holds the UID already may hold another file under it."""
        known = self.status is not None and self.status != DUPLICATE_SOP_INSTANCE
        return known and state_of(self.status or 0) is DeliveryState.DELIVERED


def read_item(path: Path) -> Item | None:
    """What an association must offer for this file; None when it is not a DICOM file. pydicom may warn, with values."""
    try:
        ds = dcmread(path, stop_before_pixels=True, specific_tags=["SOPClassUID", "StudyInstanceUID"])
        meta = ds.file_meta
        sop_class = meta.get("MediaStorageSOPClassUID") or ds.get("SOPClassUID")
        if not sop_class:
            return None
        return Item(path, str(sop_class), str(meta.TransferSyntaxUID), str(ds.get("StudyInstanceUID", "")))
    except (InvalidDicomError, OSError, AttributeError, ValueError, TypeError, EOFError, KeyError, NotImplementedError):
        return None


def send_files(paths: Sequence[Path], peer: Peer, on_sent: Callable[[Sent], None]) -> None:
    """Send every file and report each; unreadable ones are reported unsent. Raises NoAssociation."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom's warnings quote values
        _send_files(paths, peer, on_sent)


def _send_files(paths: Sequence[Path], peer: Peer, on_sent: Callable[[Sent], None]) -> None:
    items = []
    for path in paths:
        item = read_item(path)
        if item is None:
            on_sent(Sent(path, None, "not a DICOM file"))
        else:
            items.append(item)
    for group in _groups(items):
        _send_group(group, peer, on_sent)


def _groups(items: Sequence[Item]) -> Iterator[list[Item]]:
    """As many files as one association can offer contexts for, in the given order."""
    group: list[Item] = []
    contexts: set[tuple[str, str]] = set()
    for item in items:
        context = (item.sop_class_uid, item.transfer_syntax_uid)
        if context not in contexts and len(contexts) == MAX_CONTEXTS:
            yield group
            group, contexts = [], set()
        contexts.add(context)
        group.append(item)
    if group:
        yield group


def _associate(items: Sequence[Item], peer: Peer) -> Association:
    """An association with the contexts these files need, perhaps none accepted. Raises NoAssociation."""
    needed = dict.fromkeys((item.sop_class_uid, item.transfer_syntax_uid) for item in items)
    try:
        return associate(peer, _TIMES, [build_context(*one) for one in needed])
    except (NotOffered, Unreachable) as error:
        raise NoAssociation(str(error)) from None


def _send_group(items: Sequence[Item], peer: Peer, on_sent: Callable[[Sent], None]) -> None:
    assoc = _associate(items, peer)
    refused = {(str(c.abstract_syntax), str(c.transfer_syntax[0])): c.result for c in assoc.rejected_contexts}
    try:
        for item in items:
            context = (item.sop_class_uid, item.transfer_syntax_uid)
            if context in refused:
                on_sent(Sent(item.path, None, _refusal(item, peer, refused[context])))
                continue
            if not assoc.is_established:
                on_sent(Sent(item.path, None, "the association ended before this file"))
                continue
            on_sent(_store(assoc, item))
    finally:
        if assoc.is_established:
            assoc.release()


def _refusal(item: Item, peer: Peer, result: int | None) -> str:
    """A sentence for a presentation context that was not accepted (PS3.8 9.3.3.2)."""
    why = REASONS.get(result or 0, "no reason given")
    what = f"{class_name(item.sop_class_uid)} in {UID(item.transfer_syntax_uid).name}"
    return f"{peer.key} does not accept {what}: {why}"


def _store(assoc: Association, item: Item) -> Sent:
    try:
        response = assoc.send_c_store(item.path)
    except (ValueError, AttributeError):  # the text could quote a value
        return Sent(item.path, None, "the peer does not accept this SOP class in this transfer syntax")
    if "Status" not in response:
        return Sent(item.path, None, f"no answer: it {cut_off}" if (cut_off := reason_of(assoc)) else "no answer")
    status = int(response.Status)
    sent = Sent(item.path, status, str(response.get("ErrorComment", "")))
    return replace(sent, text=_stored(status)) if sent.is_stored else sent


def _stored(status: int) -> str:
    return "stored" if status == 0 else f"stored with a warning (0x{status:04X}): the peer may have changed elements"
