"""Who may use the HTTP interface: tokens, of which only the hash is kept, and the sessions of people who signed in.

A name is given once: what the audit trail says of it is said of one token for all time.
"""

import hashlib
import hmac
import secrets
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final

from sqlalchemy import Connection, Select, delete, select, update
from sqlalchemy.sql import ColumnElement

from ledger import audit
from ledger.audit import AuditEvent, AuditKind
from ledger.database import db_now, transaction
from ledger.errors import PermanentError
from ledger.questions import Questions
from ledger.tables import access_tokens as tokens
from ledger.tables import web_sessions as sessions

PREFIX: Final = "ot_"  # so that a scanner for secrets knows one that was put where it does not belong
SECRET_BYTES: Final = 32
SECRET_MAX: Final = 128  # characters that are looked at; what is longer is none of ours
DAY_S: Final = 86_400.0


class Role(StrEnum):
    """What a token is good for; each may do what those before it may."""

    READ = "read"  # see studies, have an image looked at
    OPERATE = "operate"  # release jobs, send studies in, give opinions
    ADMIN = "admin"  # read the audit trail

    def covers(self, needed: "Role") -> bool:
        order = list(Role)
        return order.index(self) >= order.index(needed)


@dataclass(frozen=True)
class Principal:
    """Who asks. name: the token's."""

    name: str
    role: Role

    @property
    def actor(self) -> str:
        """As the audit trail names it."""
        return f"user:{self.name}"


class Standing(StrEnum):
    """What became of a token or session that somebody showed."""

    GOOD = "good"
    UNKNOWN = "unknown"
    EXPIRED = "expired"
    REVOKED = "revoked"


@dataclass(frozen=True)
class Shown:
    """principal: set when the standing is GOOD; name: whose it was, once it was anybody's."""

    standing: Standing
    principal: Principal | None = None
    name: str = ""


@dataclass(frozen=True)
class TokenFacts:
    """All that is known of a token. Times are UTC."""

    name: str
    role: Role
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    is_expired: bool


class NameTaken(PermanentError):
    """A token of that name exists, or existed."""


class Access(Questions):
    """Of `ledger.ledger.Ledger`."""

    def create_token(self, name: str, role: Role, days: float | None, by: str) -> str:
        """The new token, which is nowhere kept. days: how long it holds; None: until it is revoked. by: the actor.

        Raises NameTaken.
        """
        secret = PREFIX + secrets.token_urlsafe(SECRET_BYTES)
        with self._alter() as connection:
            if connection.execute(select(tokens.c.id).where(tokens.c.name == name)).first():
                raise NameTaken(f"there is, or was, a token named {name!r}; a name is given only once")
            row = {"name": name, "role": role.value, "digest": digest_of(secret)}
            expires_at = None if days is None else db_now() + days * DAY_S
            connection.execute(tokens.insert().values(created_at=db_now(), expires_at=expires_at, **row))
            audit.record(connection, _changed("token_created", by, name, role=role.value, days=days))
        return secret

    def revoke_token(self, name: str, by: str) -> bool:
        """End a token and its sessions at once; False when there is none in force of that name."""
        with self._alter() as connection:
            found = connection.execute(
                update(tokens)
                .where(tokens.c.name == name, tokens.c.revoked_at.is_(None))
                .values(revoked_at=db_now())
                .returning(tokens.c.id)
            ).scalar()
            if found is None:
                return False
            connection.execute(delete(sessions).where(sessions.c.token_id == found))
            audit.record(connection, _changed("token_revoked", by, name))
        return True

    def tokens(self) -> list[TokenFacts]:
        """All there ever were, oldest first."""
        with self._read() as connection:
            rows = connection.execute(select(tokens, _is_past(tokens.c.expires_at)).order_by(tokens.c.id)).all()
        return [
            TokenFacts(
                row.name, Role(row.role), _utc(row.created_at), row.expires_at and _utc(row.expires_at),
                row.revoked_at and _utc(row.revoked_at), bool(row.is_past),
            )
            for row in rows
        ]  # fmt: skip

    def token_shown(self, secret: str) -> Shown:
        """Whose token this is, if it holds. Changes nothing."""
        digest = digest_of(secret)
        query = select(tokens, _is_past(tokens.c.expires_at)).where(tokens.c.digest == digest)
        with self._read() as connection:
            return _shown(connection, query, digest)

    def session_shown(self, cookie: str) -> Shown:
        """Whose session this is, if it and the token it was opened with hold. Changes nothing."""
        digest = digest_of(cookie)
        past = _is_past(tokens.c.expires_at)
        query = (
            select(tokens.c.name, tokens.c.role, tokens.c.revoked_at, sessions.c.digest, past)
            .join_from(sessions, tokens, sessions.c.token_id == tokens.c.id)
            .where(sessions.c.digest == digest, sessions.c.expires_at > db_now())
        )
        with self._read() as connection:
            return _shown(connection, query, digest)

    def open_session(self, name: str, hours: float) -> str:
        """A cookie for who holds the token `name`. Sessions that have ended are swept."""
        cookie = secrets.token_urlsafe(SECRET_BYTES)
        with self._alter() as connection:
            connection.execute(delete(sessions).where(sessions.c.expires_at <= db_now()))
            token_id = connection.execute(
                select(tokens.c.id).where(tokens.c.name == name, tokens.c.revoked_at.is_(None))
            ).scalar_one()
            connection.execute(
                sessions.insert().values(
                    digest=digest_of(cookie), token_id=token_id, created_at=db_now(),
                    expires_at=db_now() + hours * 3600.0,
                )
            )  # fmt: skip
        return cookie

    def close_session(self, cookie: str) -> bool:
        """Sign out; False when there was no such session."""
        with self._alter() as connection:
            return bool(connection.execute(delete(sessions).where(sessions.c.digest == digest_of(cookie))).rowcount)

    def _alter(self) -> AbstractContextManager[Connection]:
        return transaction(self._engine, write=True)


def digest_of(secret: str) -> str:
    """What is kept of a token or cookie: 256 random bits need no salt and no slow hash."""
    return hashlib.sha256(secret[: SECRET_MAX + 1].encode("utf-8", "replace")).hexdigest()


def _shown(connection: Connection, query: Select[Any], digest: str) -> Shown:
    row = connection.execute(query).first()
    if row is None or not hmac.compare_digest(row.digest, digest):
        return Shown(Standing.UNKNOWN)
    if row.revoked_at is not None:
        return Shown(Standing.REVOKED, name=row.name)
    if row.is_past:
        return Shown(Standing.EXPIRED, name=row.name)
    return Shown(Standing.GOOD, Principal(row.name, Role(row.role)), row.name)


def _is_past(column: ColumnElement[Any]) -> ColumnElement[Any]:
    """By the database's clock; NULL, which is no end, is not past."""
    return (column <= db_now()).label("is_past")


def _changed(what: str, by: str, name: str, **detail: Any) -> AuditEvent:
    return AuditEvent(AuditKind.CONFIGURATION, by, detail={"change": what, "token": name, **detail})


def _utc(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
