"""What a person must know of the files of [receive.tls] before they fail: at check-config, in the log, in /healthz."""

import os
import time
from collections.abc import Callable, Hashable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, TypeVar, cast

import structlog
from pydantic import BaseModel

from config.settings import TlsSettings
from node import log_events
from scp.network.certificates import certificate_expiry, revocations_expiry
from scp.network.tls import CannotSecure, rehearse, server_context

SOON_DAYS = (1, 7, 30)  # before the end of a certificate: each is said once in the log
ECHO_ENDS = (
    "the node's own certificate would not let the node in ({why}), so its own C-ECHO ends at the handshake and proves "
    "no more than that: issue it for serverAuth and clientAuth, by an authority in ca_file"
)


def errors(tls: TlsSettings, now: datetime) -> Iterator[str]:
    """A sentence for each reason why nobody could, or nobody should, associate with these files."""
    if not tls.enabled:
        return
    try:
        _once(_used, tls, _files_of(tls))
    except CannotSecure as error:
        yield str(error)
        return
    if _days_left(tls, now) is None:
        yield f"receive.tls.certificate_file: {tls.certificate_file} does not say until when it is valid"
    yield from ended(tls, now)
    if tls.key_file.stat().st_mode & 0o007:
        yield f"receive.tls.key_file: {tls.key_file} can be read by everybody on this machine"


def ended(tls: TlsSettings, now: datetime) -> Iterator[str]:
    """A sentence for each file that is in use and whose time is over: nobody can associate any more."""
    if not tls.enabled:
        return
    if (left := _days_left(tls, now)) is not None and left < 0:
        yield f"receive.tls.certificate_file: {tls.certificate_file} has expired, so senders refuse the node"
    if _list_is_old(tls, now):
        yield f"receive.tls.crl_file: {tls.crl_file} is past its next update, so nobody is let in"


def warnings(tls: TlsSettings, now: datetime) -> Iterator[str]:
    """A sentence for each thing that works and should not stay so. Nothing where there are errors."""
    if not tls.enabled or any(errors(tls, now)):
        return
    if not tls.mutual:
        yield "receive.tls.mutual: off, so anybody may send who can reach the port; an AE title is no proof"
        if idle := [name for name in ("ca_file", "crl_file") if getattr(tls, name) != Path()]:
            yield f"receive.tls.mutual: off, so {' and '.join(idle)} has no effect: nobody's certificate is asked for"
    left = _days_left(tls, now)
    if left is not None and left < SOON_DAYS[-1]:
        yield f"receive.tls.certificate_file: expires in {_days(left)}"
    if why := own_refused(tls):
        yield "receive.tls: " + ECHO_ENDS.format(why=why)


def alarms(tls: TlsSettings, now: datetime) -> list[str]:
    """For /healthz: what must be mended while the node goes on. What has ended is no alarm, but a reason to be red."""
    found = set(errors(tls, now)) - (over := set(ended(tls, now)))
    if over:
        return sorted(found)
    if found:
        return [
            f"{sentence}; a receiver that runs goes on with the files that it read before" for sentence in sorted(found)
        ]
    return [sentence for sentence in warnings(tls, now) if not sentence.startswith("receive.tls.mutual")]


class ExpiryWatch:
    """Says in the log when a certificate comes near its end: 30, 7 and 1 days before, and at the end."""

    def __init__(self, tls: TlsSettings) -> None:
        self._tls = tls
        self._said: int | None = None

    def look(self, now: datetime) -> None:
        """Say it once for each of those days."""
        left = _days_left(self._tls, now) if self._tls.enabled else None
        mark = None if left is None else next((days for days in (0, *SOON_DAYS) if left < days), None)
        if mark is not None and mark != self._said:
            tell = structlog.get_logger().error if mark <= SOON_DAYS[0] else structlog.get_logger().warning
            tell(log_events.CERTIFICATE_EXPIRES, file=str(self._tls.certificate_file), days_left=left)
        self._said = mark


def named(settings: object, at: str = "") -> Iterator[tuple[str, datetime | None]]:
    """Every certificate_file of the settings by its place, and until when it is valid; None where it cannot be read."""
    if isinstance(settings, BaseModel):
        for name in type(settings).model_fields:
            value = getattr(settings, name)
            place = f"{at}.{name}" if at else name
            if name == "certificate_file" and value != Path():
                yield place, _expiry(value)
            else:
                yield from named(value, place)
    elif isinstance(settings, tuple):
        for one in settings:
            yield from named(one, f"{at} {key}" if (key := getattr(one, "key", "")) else at)


def own_refused(tls: TlsSettings) -> str:
    """Why the node's own certificate would not let the node in; empty when it would. Raises CannotSecure."""
    return _once(rehearse, tls, _files_of(tls))


def today() -> datetime:
    """Now, as certificates count."""
    return datetime.now(UTC)


def _days_left(tls: TlsSettings, now: datetime) -> int | None:
    """Whole days; negative when it has ended; None where the file cannot be read."""
    until = _expiry(tls.certificate_file)
    return None if until is None else (until - now).days


def _days(count: int) -> str:
    return "less than a day" if count < 1 else "1 day" if count == 1 else f"{count} days"


def _list_is_old(tls: TlsSettings, now: datetime) -> bool:
    if tls.crl_file == Path() or not tls.mutual:
        return False
    try:
        until = _once(revocations_expiry, tls.crl_file, (tls.crl_file,))
    except (OSError, ValueError):
        return False  # a file of lists in another form: OpenSSL has read it
    return until is not None and until < now


def _expiry(path: Path) -> datetime | None:
    """None where the file cannot be read."""
    try:
        return _once(certificate_expiry, path, (path,))
    except (OSError, ValueError):
        return None


def _used(tls: TlsSettings) -> None:
    """As the receiver would. Raises CannotSecure."""
    server_context(tls)


# --- each file is read once, until it is another one ---

READ_AGAIN_S: Final = 3600.0  # all the same: a certificate that nothing here asks until when it holds may end too
_KEPT_MAX: Final = 64
_Said = TypeVar("_Said")
_Of = TypeVar("_Of", bound=Hashable)
_kept: dict[Hashable, tuple[tuple[object, ...], float, object]] = {}


def _once(read: Callable[[_Of], _Said], of: _Of, files: tuple[Path, ...]) -> _Said:
    """`read(of)`, which rests on these files: what it said before, while none of them changed. What it raises is not
    kept: the next look may do better."""
    stamps, key = tuple(map(_stamp, files)), (read, of)  # before they are read: who changes them meanwhile is noticed
    kept = _kept.get(key)
    if kept is not None and kept[0] == stamps and time.monotonic() < kept[1]:
        return cast(_Said, kept[2])
    found = read(of)
    if len(_kept) >= _KEPT_MAX:
        _kept.clear()
    _kept[key] = (stamps, time.monotonic() + READ_AGAIN_S, found)
    return found


def _stamp(path: Path) -> tuple[int, ...] | None:
    try:
        file = os.stat(path)  # noqa: PTH116  which follows links, as whoever reads it does
    except OSError:
        return None
    return file.st_dev, file.st_ino, file.st_mtime_ns, file.st_ctime_ns, file.st_size


def _files_of(tls: TlsSettings) -> tuple[Path, ...]:
    files = (tls.certificate_file, tls.key_file, tls.ca_file, tls.crl_file)
    return tuple(file for file in files if file != Path())
