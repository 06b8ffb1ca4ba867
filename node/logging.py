"""structlog JSON on stderr that cannot name a patient.

Three doors are closed: keys that name a person are refused, exceptions of others lose their text (pydicom quotes
values), and the messages of the DICOM libraries are replaced by the place they came from.
"""

import logging
import sys
import threading
import traceback
from collections.abc import MutableMapping
from contextlib import suppress
from datetime import date, time
from pathlib import PurePath
from types import TracebackType
from typing import Any, Final, TextIO, cast

import structlog

from ledger.errors import OpenTriageError
from node import log_events

Event = MutableMapping[str, Any]
REFUSED = "[refused]"
# PS3.15 Table E.1-1 names what identifies a person; these are the ones a careless line would log.
REFUSED_KEYS = frozenset((
    "patientname", "patientid", "patientbirthdate", "patientbirthtime", "patientaddress", "patientsex",
    "patientage", "patientcomments", "patienttelephonenumbers", "patientmotherbirthname", "otherpatientids",
    "otherpatientnames", "otherpatientidssequence", "issuerofpatientid", "militaryrank", "ethnicgroup",
    "occupation", "accessionnumber", "referringphysicianname", "responsibleperson", "performingphysicianname",
    "operatorsname", "requestingphysician", "institutionname", "studyid", "admissionid", "patient", "ds",
    "dataset",
))  # fmt: skip
QUOTING_LIBRARIES = ("pydicom", "pynetdicom", "highdicom", "py.warnings", "PIL", "asyncio")


class _Patient:
    """Standard error, which may be a file on a disk that is full: a line that cannot be written is lost, and nobody's
    work with it."""

    def write(self, line: str) -> int:
        with suppress(OSError):
            return sys.stderr.write(line)
        return 0

    def flush(self) -> None:
        with suppress(OSError):
            sys.stderr.flush()


STDERR: Final = cast(TextIO, _Patient())


def configure(level: str, role: str) -> None:
    """Send structlog, stdlib logging, warnings and unhandled errors of this process to stderr as JSON lines."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _add("role", role),
            refuse_identities,
            errors_without_values,
            structlog.processors.JSONRenderer(default=_printable),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=lambda *names: structlog.WriteLogger(STDERR),  # a line is one write: roles share stderr
        cache_logger_on_first_use=False,
    )
    root = logging.getLogger()
    root.handlers[:] = [_LibraryHandler()]
    root.setLevel(logging.WARNING)
    logging.getLogger("pynetdicom").setLevel(logging.CRITICAL)  # its facts are told by our own events
    logging.captureWarnings(capture=True)
    sys.excepthook = _unhandled
    threading.excepthook = lambda arguments: _unhandled(
        arguments.exc_type, arguments.exc_value, arguments.exc_traceback
    )


def _add(key: str, value: str) -> structlog.typing.Processor:
    def add(logger: Any, method: str, event: Event) -> Event:
        event.setdefault(key, value)
        return event

    return add


def refuse_identities(logger: Any, method: str, event: Event) -> Event:
    """Replace the value of every key that names a person, however it is spelt, at any depth."""
    for key, value in event.items():
        event[key] = _refuse(key, value)
    return event


def _refuse(key: str, value: Any) -> Any:
    if "".join(character for character in key.lower() if character.isalnum()) in REFUSED_KEYS:
        return REFUSED
    if isinstance(value, dict):
        return {inner: _refuse(str(inner), item) for inner, item in value.items()}
    if isinstance(value, BaseException):
        return describe(value)
    return value


def errors_without_values(logger: Any, method: str, event: Event) -> Event:
    """Turn `exc_info` into kinds and places; only our own errors keep their text, which never names a patient."""
    given = event.pop("exc_info", None)
    error = given if isinstance(given, BaseException) else (sys.exc_info()[1] if given else None)
    if error is not None:
        event["error"] = describe(error)
        event["where"] = places(error)
    return event


def _printable(value: Any) -> str:
    """Paths and times as text; of anything else only its kind, for a data set would print its patient."""
    return str(value) if isinstance(value, (PurePath, date, time)) else f"<{type(value).__name__}>"


def describe(error: BaseException) -> str:
    """What kind of error, and its text only when it is one of ours."""
    kind = type(error).__name__
    if isinstance(error, OpenTriageError):
        return f"{kind}: {error}"
    if isinstance(error, OSError) and error.strerror:
        return f"{kind}: {error.strerror}"
    return kind


def places(error: BaseException, last: int = 6) -> list[str]:
    """The innermost frames as file:line function, outermost first."""
    frames = traceback.extract_tb(error.__traceback__)[-last:]
    return [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames]


def _unhandled(kind: type[BaseException], error: BaseException | None, trace: TracebackType | None) -> None:
    if error is None or isinstance(error, (KeyboardInterrupt, SystemExit)):
        return
    structlog.get_logger().critical(log_events.UNHANDLED_ERROR, exc_info=error)


class _LibraryHandler(logging.Handler):
    """What other libraries say. The DICOM libraries quote data elements, so only the place is kept of theirs."""

    def emit(self, record: logging.LogRecord) -> None:
        library = record.name.split(".")[0] if record.name != "py.warnings" else record.name
        fields: dict[str, Any] = {"logger_name": record.name, "place": f"{record.module}:{record.lineno}"}
        if library not in QUOTING_LIBRARIES:
            fields["message"] = record.getMessage()
        if record.exc_info and record.exc_info[1] is not None:
            fields["exc_info"] = record.exc_info[1]
        log = structlog.get_logger()
        (log.error if record.levelno >= logging.ERROR else log.warning)(log_events.LIBRARY_MESSAGE, **fields)
