"""What every adapter says of a report, whatever the format, and what it may be answered."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from ledger.errors import RetryableError
from ledger.notifications import Notice, NotificationState
from ledger.records import Finding, ReportKind, TriagePriority
from ledger.slices import marked_words, refused_words
from sr_writer.identity import uid_from
from sr_writer.source import SourceHeader, value_text
from sr_writer.words import sayable, speakable

WITHDRAWN, NOT_RAISED = "WITHDRAWN", "NOT_RAISED"


@dataclass(frozen=True)
class Message:
    """One report for one adapter."""

    notice: Notice
    adapter: str
    installation_uid: str
    header: SourceHeader = field(repr=False)

    @property
    def uid(self) -> str:
        """The same whenever it is told again, so that the receiver can recognise what it has already."""
        return uid_from("notice", self.installation_uid, self.adapter, str(self.notice.report_id))

    @property
    def status(self) -> str:
        """HIGH, MEDIUM, NOT_ASSESSED, NOT_RAISED or WITHDRAWN. The lowest priority has no name outside."""
        if self.notice.report_kind is ReportKind.WITHDRAWN:
            return WITHDRAWN
        return NOT_RAISED if self.notice.priority is TriagePriority.LOW else self.notice.priority.value

    @property
    def findings(self) -> tuple[Finding, ...]:
        """Without a model's internal classes, which say nothing to a reader."""
        return speakable(self.notice.findings)

    @property
    def slices(self) -> str:
        """What a slice model says, in a sentence; empty where none looked, and of what was withdrawn."""
        if self.status == WITHDRAWN:
            return ""
        said = [*marked_words(self.notice.slices_marked), refused_words(self.notice.slices_refused)]
        text = "; ".join(filter(None, map(sayable, said)))
        return text[:1].upper() + text[1:]

    def text(self, keyword: str) -> str:
        """Of the source's header; empty where it does not say."""
        return value_text(self.header.patient_and_study, keyword)


@dataclass(frozen=True)
class Answer:
    """What became of a message. reason: a sentence without anything that the receiver said of the patient."""

    state: NotificationState
    reason: str = ""


class TryLater(RetryableError):
    """This one message was not taken, and may be when it is told again; others need not wait for it."""


class Teller(Protocol):
    """One adapter."""

    def tell(self, message: Message) -> Answer:
        """Raises Unreachable when there is no connection, TryLater when the message was not taken this time."""


def accepted(reason: str = "") -> Answer:
    return Answer(NotificationState.ACCEPTED, reason)


def refused(reason: str) -> Answer:
    return Answer(NotificationState.REFUSED, reason)


def stopped(reason: str) -> Answer:
    """It was told to nobody, by us."""
    return Answer(NotificationState.STOPPED, reason)


def not_needed(reason: str) -> Answer:
    return Answer(NotificationState.NOT_NEEDED, reason)


def secret(path: Path) -> bytes:
    """What a secret's file holds, without white space around it. Raises OSError."""
    return path.read_bytes().strip()
