"""What the node itself puts into the audit trail: who runs it, its starts and stops, and what was changed meanwhile."""

import json
import os
import pwd
import socket
import time
from collections.abc import Iterator
from hashlib import sha256
from importlib.metadata import version
from typing import Any

from config import Settings
from ledger.audit import AuditEvent, AuditKind, Outcome, Person
from ledger.errors import LedgerUnavailable
from ledger.ledger import Ledger
from node import notices
from node.chores.seal import NOTICE, Sealer
from node.running.outage import OUTAGE
from node.trail import heads

SEAL_WITHIN_S = 60.0
EXPORT_WITHIN_S = 120.0
SUDO_USER_MAX = 64


def person() -> Person:
    """Who runs this command, as the trail names him: the system's user, whatever LOGNAME says. Where that is another's
    account (sudo -u opentriage), who he was before is in the detail, as sudo says, or he himself."""
    try:
        name = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # a container's user need not have a name
        name = str(os.getuid())
    before = os.environ.get("SUDO_USER", "")
    return Person(f"user:{name}@cli", {"sudo_user": before[:SUDO_USER_MAX]} if before else {})


def accessed(ledger: Ledger, what: str, study_uid: str = "") -> None:
    """Somebody at this machine's console looks at a study, or at the list. Raises LedgerUnavailable: what cannot be
    audited is not shown."""
    try:
        ledger.audit(AuditEvent(AuditKind.ACCESSED, person(), study_uid, detail={"what": what}))
    except LedgerUnavailable as error:
        raise LedgerUnavailable(
            f"this look cannot be written to the audit trail, so nothing is shown: {error}"
        ) from error


def node_started(settings: Settings, ledger: Ledger) -> None:
    """Its start, and which settings are others than at the last start on this machine. Values are never kept."""
    _kept(ledger, _activity("started", "node", version=_version()))
    _changed(ledger, "settings", AuditKind.CONFIGURATION, dict(_flat("", settings.model_dump(mode="json"))))


def role_started(ledger: Ledger, role: str) -> None:
    _kept(ledger, _activity("started", role))


def role_died(ledger: Ledger, role: str, status: int) -> None:
    _kept(ledger, _activity("died", role, Outcome.SERIOUS_FAILURE, status=status))


def role_stuck(ledger: Ledger, role: str, how: str) -> None:
    """It lived and did nothing: somebody or something stopped it, and it is replaced. how: "stopped" or "deaf"."""
    _kept(ledger, _activity("stuck", role, Outcome.SERIOUS_FAILURE, how=how))


def role_stopped(ledger: Ledger, role: str) -> None:
    _kept(ledger, _activity("stopped", role))


def node_stopped(settings: Settings, ledger: Ledger, clean: bool) -> None:
    """Its stop. The sealer has gone by now: what it left is sealed here."""
    _kept(ledger, _activity("stopped", "node", Outcome.SUCCESS if clean else Outcome.MINOR_FAILURE))
    sealer = Sealer(ledger, heads.heads_file(settings))
    sealer.once()
    sealer.export()


def models_loaded(ledger: Ledger, packages: dict[str, str]) -> None:
    """Which packages serve, if they are others than the last time on this machine. name/version -> digest."""
    _changed(ledger, "models", AuditKind.MODEL, packages, packages)


def alarms(settings: Settings, ledger: Ledger) -> list[str]:
    """Sentences for a person: nothing seals, the chain is broken, its heads or its repository are away.
    LedgerUnavailable."""
    found = list(_head_alarms(notices.read(settings, NOTICE)))
    if (unsealed_s := ledger.audit_unsealed_s()) > SEAL_WITHIN_S:
        found.append(f"a record of the audit trail has waited {unsealed_s:.0f} s for its seal: does the role keep run?")
    if settings.audit.is_told:
        count, oldest_s = ledger.audit_backlog(settings.audit.repository)
        if oldest_s > settings.audit.late_after_min * 60:
            found.append(
                f"the audit repository {settings.audit.repository} has not heard of {count} records, the oldest "
                f"{oldest_s / 60:.0f} minutes old; the log (audit_repository_unreachable) says why"
            )
    return found


def _head_alarms(told: dict[str, Any]) -> Iterator[str]:
    """told: by whoever seals."""
    if told.get("broken"):
        yield (
            f"the audit trail is not what it was: its head {told['broken']} was exported and the chain lacks it; "
            "was an older ledger restored? `opentriage audit verify`, then put audit.heads_file away with a note"
        )
    since = float(told.get("unexported_since", 0.0))
    if since and (away_s := time.time() - since) > EXPORT_WITHIN_S:
        yield (
            f"the audit trail's heads could not be exported for {away_s / 60:.0f} minutes: can audit.heads_file be "
            "written? An end that is cut off meanwhile is not found"
        )


def _activity(did: str, what: str, outcome: Outcome = Outcome.SUCCESS, **detail: Any) -> AuditEvent:
    said = {"did": did, "what": what, "host": socket.gethostname()} | detail
    return AuditEvent(AuditKind.ACTIVITY, f"node:{what}", outcome=outcome, detail=said)


def _kept(ledger: Ledger, event: AuditEvent) -> None:
    """A node starts and stops whether or not the ledger can be written at that moment; the log says so too."""
    try:
        ledger.audit(event)
        OUTAGE.back()
    except LedgerUnavailable as error:
        OUTAGE.away(error)


def _changed(
    ledger: Ledger, what: str, kind: AuditKind, now: dict[str, str], shown: dict[str, str] | None = None
) -> None:
    machine = sha256(socket.gethostname().encode()).hexdigest()[:12]
    try:
        ledger.audit_changed(
            f"{what}:{machine}", kind, now, {"host": socket.gethostname()} | ({"now": shown} if shown else {})
        )
    except LedgerUnavailable as error:
        OUTAGE.away(error)


def _flat(prefix: str, value: Any) -> Iterator[tuple[str, str]]:
    """(dotted key, value as JSON). What has a name is found again by it, wherever in its list it stands."""
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _flat(f"{prefix}.{key}" if prefix else str(key), inner)
    elif isinstance(value, list) and value and isinstance(value[0], dict):
        for place, inner in enumerate(value):
            yield from _flat(f"{prefix}[{inner.get('name') or inner.get('ae_title') or place}]", inner)
    else:
        yield prefix, json.dumps(value)


def _version() -> str:
    return version("opentriage")
