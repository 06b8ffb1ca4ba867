"""What was changed since the last start: settings, model packages. Of values only keyed hashes are kept."""

import hmac
import json
from collections.abc import Mapping
from hashlib import sha256
from typing import Any

from sqlalchemy import Connection, select, update

from ledger.audit import AuditEvent, AuditKind, key_of, record
from ledger.database import serialised
from ledger.tables import installation


def note(connection: Connection, what: str, kind: AuditKind, now: Mapping[str, str], more: Mapping[str, Any]) -> bool:
    """Whether anything is other than the last time; then it is recorded, in this transaction."""
    key = key_of(connection)
    hashed = {name: hmac.digest(key, f"{name}\0{value}".encode(), "sha256").hex()[:16] for name, value in now.items()}
    kept = json.dumps(hashed, sort_keys=True)
    mine = installation.c.key == what
    asked = select(installation.c.value).where(mine)
    before = connection.execute(asked).scalar()
    if before == kept:
        return False
    serialised(connection)  # two roles of one machine start at once: one of them finds the change
    if (before := connection.execute(asked).scalar()) == kept:
        return False
    if before is None:
        connection.execute(installation.insert().values(key=what, value=kept))
        said: dict[str, Any] = {"did": "first_seen", "keys": len(hashed)}
    else:
        connection.execute(update(installation).where(mine).values(value=kept))
        said = {"did": "changed", "was": _short(before), **_difference(json.loads(before), hashed)}
    detail = said | {"what": what.partition(":")[0], "hash": _short(kept)} | dict(more)
    record(connection, AuditEvent(kind, "node", detail=detail))
    return True


def _difference(before: Mapping[str, str], now: Mapping[str, str]) -> dict[str, list[str]]:
    changed = sorted(name for name in before if name in now and before[name] != now[name])
    said = {"changed": changed, "added": sorted({*now} - {*before}), "removed": sorted({*before} - {*now})}
    return {how: names for how, names in said.items() if names}


def _short(kept: str) -> str:
    return sha256(kept.encode()).hexdigest()[:16]
