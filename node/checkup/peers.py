"""Of `opentriage doctor`: whoever the node talks to. By C-ECHO and by negotiation alone: nothing is stored, no message
is sent, and nobody is named."""

import socket
import ssl
from collections.abc import Iterator
from urllib.parse import urlsplit

from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import build_context
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]

from config import Settings
from config.adapters import Adapter, Hl7Adapter
from config.settings import CommitmentRequestor, DeliverSettings, Destination
from node.checkup.lines import Level, Line, failure, ok, warning
from node.checkup.machine import runs
from node.roles import count_desk
from node.trail.syslog import Connection, Unheard
from node.trying.probe import needed
from sr_writer.association import NotOffered, asking, associate
from sr_writer.bounded_socket import reason_of
from sr_writer.errors import Unreachable
from sr_writer.find import STUDY_ROOT_FIND
from sr_writer.profiles import PROFILES
from sr_writer.secure import named_context
from sr_writer.statuses import class_name

COMMITMENT = "1.2.840.10008.1.20.1"
CONNECT_S, ANSWER_S = 5.0, 5.0
_SYNTAXES = ((str(ExplicitVRLittleEndian), "explicit"), (str(ImplicitVRLittleEndian), "implicit"))
_AWAY = "Check host, port, network and firewall; see docs/runbooks/pacs-down.md."


def destination(one: Destination, settings: Settings) -> Iterator[Line]:
    """A C-ECHO, then which of the objects that it is to get it would take."""
    what = f"destination {one.key}"
    limits = settings.deliver.model_copy(update={"connect_timeout_s": CONNECT_S, "response_timeout_s": ANSWER_S})
    try:
        yield from _echo(what, one, limits)
        yield from _negotiated(what, one, settings, limits)
    except Unreachable as error:
        said = failure(what, f"{one.ae_title}@{one.host}:{one.port}: {error}", _AWAY)
        yield said if settings.node.mode == "live" else Line(what, Level.WARNING, said.found, said.do)
    except NotOffered as error:
        yield failure(
            what, str(error), f"Reports are parked meanwhile; then: opentriage release --all-for '{one.key}'."
        )


def _echo(what: str, one: Destination, limits: DeliverSettings) -> Iterator[Line]:
    association = associate(one, limits, [build_context(Verification)])
    try:
        if not association.accepted_contexts:
            yield warning(f"{what}: C-ECHO", "takes associations and offers no Verification", "Nothing depends on it.")
            return
        status = association.send_c_echo().get("Status")
        if status == 0:
            yield ok(f"{what}: C-ECHO", f"{one.ae_title}@{one.host}:{one.port} answered")
        else:
            said = reason_of(association) or "did not answer" if status is None else f"answered 0x{status:04X}"
            yield failure(f"{what}: C-ECHO", f"it took the association and {said}", "Look at its log.")
    finally:
        if association.is_established:
            association.release()


def _negotiated(what: str, one: Destination, settings: Settings, limits: DeliverSettings) -> Iterator[Line]:
    wanted = needed(one.profile, settings.report.localization)
    kinds = {kind: PROFILES[one.profile].sop_classes()[kind] for kind in wanted}
    classes = list(dict.fromkeys(uid for uids in kinds.values() for uid in uids))
    contexts = [build_context(uid, syntax) for uid in classes for syntax, _ in _SYNTAXES]
    contexts += [build_context(uid, str(ImplicitVRLittleEndian)) for uid in _asked_by(one)]
    association = associate(one, limits, contexts)
    taken = {(str(c.abstract_syntax), str(c.transfer_syntax[0])) for c in association.accepted_contexts}
    if association.is_established:
        association.release()
    accepted = {uid: [name for syntax, name in _SYNTAXES if (uid, syntax) in taken] for uid in classes}
    said = [f"{_short(uid)} ({'/'.join(names)})" for uid, names in accepted.items() if names]
    refused = [_short(uid) for uid, names in accepted.items() if not names]
    lacking = [k for k, uids in kinds.items() if wanted[k] == "yes" and not any(accepted[uid] for uid in uids)]
    found = f"takes {', '.join(said) or 'nothing'}" + (f"; not {', '.join(refused)}" if refused else "")
    if lacking:
        named = ", ".join(kind.replace("_", " ") for kind in lacking)
        do = f"Allow there what carries the {named}, or choose another profile for it (config/default.toml)."
        yield failure(f"{what}: objects", found, do)
    else:
        yield ok(f"{what}: objects", found)
    yield from _proof(what, one, {uid for uid, _ in taken})


def _asked_by(one: Destination) -> list[str]:
    ways = {"commitment": COMMITMENT, "find": STUDY_ROOT_FIND}
    return [ways[way] for way in one.proof if way in ways]


def _proof(what: str, one: Destination, taken: set[str]) -> Iterator[Line]:
    asked = _asked_by(one)
    if not asked:
        return
    offered = [class_name(uid) for uid in asked if uid in taken]
    if offered:
        yield ok(f"{what}: proof", f"offers {', '.join(offered)}")
    else:
        do = "Let it offer one of them to our AE title; without, what it accepted stays unproven."
        yield warning(f"{what}: proof", "offers neither Storage Commitment nor a query", do)


def _short(uid: str) -> str:
    return class_name(uid).removesuffix(" Storage")


def counted(one: Destination, settings: Settings) -> Iterator[Line]:
    """Whether `study.count_at` can be asked: it takes the question, and where a node runs somebody asks it."""
    what = f"study.count_at: {one.key}"
    limits = settings.deliver.model_copy(update={"connect_timeout_s": CONNECT_S, "response_timeout_s": ANSWER_S})
    try:
        with asking(one, limits, STUDY_ROOT_FIND):
            yield ok(what, f"offers {class_name(STUDY_ROOT_FIND)}")
    except (NotOffered, Unreachable) as error:
        do = "Allow our AE title to query there; until then reports go without its count."
        yield warning(what, str(error), do)
    if runs(settings) and not count_desk.is_open(settings):
        do = "Let `deliver` and `report` run on one machine; see its log. Until then reports go without a count."
        yield warning(what, "the deliver role of this machine takes no question for it", do)


# --- adapters, senders that are told ---


def adapter(one: Adapter) -> Iterator[Line]:
    """A connection, in TLS where it is to be; no message."""
    what = f"adapter {one.key}"
    host, port, secured = _address(one)
    try:
        with socket.create_connection((host, port), CONNECT_S) as raw:
            if secured:
                with named_context(one.ca_file).wrap_socket(raw, server_hostname=host):
                    pass
    except ssl.SSLError as error:
        said = getattr(error, "verify_message", "") or error.reason or "the handshake failed"
        yield failure(what, f"{host}:{port}: TLS: {said}", "Name its authority in ca_file, or mend its certificate.")
    except OSError as error:
        yield failure(what, f"{host}:{port}: {error.strerror or error}", "Check host, port, network and firewall.")
    else:
        yield ok(what, f"{host}:{port}: {'TLS stands' if secured else 'connected, in the clear'}")


def _address(one: Adapter) -> tuple[str, int, bool]:
    if isinstance(one, Hl7Adapter):
        return one.host, one.port, one.tls
    url = urlsplit(one.url)
    secured = url.scheme == "https"
    return url.hostname or "", url.port or (443 if secured else 80), secured


def repository(settings: Settings) -> Iterator[Line]:
    """The audit record repository: a connection that ends in good order, with no message on it."""
    what = f"audit repository {settings.audit.repository}"
    try:
        Connection(settings.audit).end(settings.audit.confirm)
    except Unheard as error:
        do = (
            "Check [audit] repository_* and its certificate; until then the records wait in the ledger (docs/audit.md)."
        )
        yield failure(what, str(error), do)
    else:
        yield ok(what, "TLS stands, and it ends a connection in good order")


def requestor(one: CommitmentRequestor) -> Iterator[Line]:
    """Who is told what we keep of its images."""
    what = f"commitment requestor {one.key}"
    try:
        socket.create_connection((one.host, one.port), CONNECT_S).close()
    except OSError as error:
        do = "Check its address in [[commitment_requestors]]: it hears no answer that comes later."
        yield warning(what, f"no connection: {error.strerror or error}", do)
    else:
        yield ok(what, "connected")
