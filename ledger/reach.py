"""What a process must be able to reach for a ledger's sake: files, or a server. For who gives up everything else."""

import ipaddress
import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sqlalchemy import make_url

from ledger.database import refused

POSTGRESQL_PORT: Final = 5432
HOLD_WITHIN_S: Final = 30.0
_NAMED_FILES: Final = ("sslrootcert", "sslcert", "sslkey", "sslcrl", "passfile")  # of libpq, in the URL's query


@dataclass(frozen=True)
class Reach:
    """files: to read and write. reads: of the client of a server. ports: TCP, of that server; none where it is reached
    by a Unix socket. names: whether a name must be looked up to find it."""

    files: tuple[Path, ...] = ()
    reads: tuple[Path, ...] = ()
    ports: tuple[int, ...] = ()
    names: bool = False


def of(url: str) -> Reach:
    """Of the ledger at `url`."""
    parsed = make_url(url)
    if url.startswith("sqlite"):
        return Reach(files=_sqlite_files(Path(parsed.database or "")))
    query = {key: (value,) if isinstance(value, str) else value for key, value in parsed.query.items()}
    given = [host.rpartition(":") if ":" in host else (host, "", "") for host in query.get("host", ())]
    hosts = [parsed.host] if parsed.host else [host for host, _, _ in given]
    remote = [host for host in hosts if host and not host.startswith("/")]
    ports = (
        {parsed.port or POSTGRESQL_PORT, *(int(port) for _, _, port in given if port.isdecimal())} if remote else set()
    )
    reads = [Path(name) for key in _NAMED_FILES for name in query.get(key, ())]
    return Reach(reads=tuple(reads), ports=tuple(sorted(ports)), names=not all(map(_is_address, remote)))


def hold(url: str) -> sqlite3.Connection | None:
    """SQLite: a connection that does nothing; None for a server. While it is open the write-ahead log and its index
    stay the files that they are, so that a process that may use no others finds them. Raises LedgerUnavailable."""
    if not url.startswith("sqlite"):
        return None
    path = make_url(url).database or ""
    try:
        held = sqlite3.connect(path, timeout=HOLD_WITHIN_S, isolation_level=None, check_same_thread=False)
        held.execute("PRAGMA journal_mode=WAL")
        held.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except sqlite3.Error as error:
        raise refused(error) from error
    return held


def _sqlite_files(database: Path) -> tuple[Path, ...]:
    return (database, *(database.with_name(database.name + ending) for ending in ("-wal", "-shm")))


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def is_plain(url: str) -> bool:
    """Whether what is asked of a server on another machine, and its answers, may cross the network in the clear."""
    parsed = make_url(url)
    host = parsed.host or "".join(parsed.query.get("host", ""))
    if url.startswith("sqlite") or not host or host.startswith("/") or host in ("localhost", "127.0.0.1", "::1"):
        return False
    return parsed.query.get("sslmode") not in ("verify-full", "verify-ca")


def password_in(url: str) -> bool:
    """Whether the URL holds a password."""
    return bool(make_url(url).password)
