"""The triage list in words: the same on the page, in the terminal and in the demonstration.

LOW is ordinal inside the node; a person reads that nothing was flagged and that other disease was not looked for.
"""

from datetime import datetime, timedelta
from typing import Final

from ledger.delivery_records import DeliveryState, Proof
from ledger.figures import with_sd
from ledger.notifications import NotificationState
from ledger.records import Finding, ReportKind, TriagePriority
from ledger.slices import marked_words, refused_words
from ledger.worklist import WorklistEntry

NO_FLAG: Final = "no flagged finding; other disease was not looked for"
NO_ALARM: Final = "no alarm: its model may raise none for this patient"
STOPPED_HERE: Final = "stopped here"
SHADOW_WORD: Final = "shadow: not sent"
DELIVERY_WORDS: Final = {
    "waiting": "not everything was accepted yet",
    "delivered": "everything was accepted; whether it is held is still to be asked or answered",
    "proven": "everything was accepted, and the destination committed to it or lists it",
    "unproven": "everything was accepted, and the destination cannot be asked whether it holds it",
    "sent again": "something was accepted and was not there when asked for",
    "refused": "the destination refused something, or lost it again and again: a person must look",
    STOPPED_HERE: "this node did not send what is damaged or not shown to be its patient's: a person must look",
    SHADOW_WORD: "made while the node was in shadow mode: it would have gone there, and is never sent",
}
STYLES: Final = {"HIGH": "bold white on red", "MEDIUM": "bold yellow", "NOT ASSESSED": "bold magenta"}


def began(days: int) -> datetime:
    """Since when studies are listed: the last 24 hours, and so many days before."""
    return datetime.now().astimezone() - timedelta(days=1 + days)


def priority_word(entry: WorklistEntry) -> str:
    """HIGH, MEDIUM, NOT ASSESSED, unflagged, prior, waiting, or no model."""
    if entry.is_prior:
        return "prior"
    if entry.priority is None:
        return "waiting" if entry.pending else "no model"
    if entry.priority is TriagePriority.LOW:
        return "unflagged"
    return entry.priority.value.replace("_", " ")


def finding_words(entry: WorklistEntry) -> str:
    """What the worst image showed, or why nothing is said."""
    if entry.is_prior:
        return "an older study: kept, not flagged"
    parts = [_finding(finding, entry.alarm) for finding in entry.findings if finding.present or finding.in_doubt]
    parts += marked_words(entry.slices_marked)
    if entry.report_kind is ReportKind.WITHDRAWN:
        parts.append("the report was withdrawn")
    if not parts and entry.priority is TriagePriority.LOW:
        parts.append(NO_FLAG)
    refused = refused_words(entry.slices_refused)
    parts += [refused] if refused else []
    if entry.report_parked:
        parts.insert(0, "NOT REPORTED: its report is parked, and `opentriage explain` says why")
    if entry.hold:
        parts.insert(0, f"HELD: {entry.hold}")
    if entry.uid_conflicts:
        parts.append("other bytes came under the same UID: both are kept")
    if entry.not_assessed_reason not in ("", refused):
        parts.append(f"not assessed: {entry.not_assessed_reason}")
    if not parts and entry.pending:
        parts.append("not looked at yet")
    return "; ".join(parts) or "no model is meant for it"


def _finding(finding: Finding, alarm: bool) -> str:
    """alarm: whether the image that it was found in raises the priority."""
    silent = finding.present and not alarm
    marked = " marked" if silent else ""
    words = f"{finding.label}{marked} {with_sd(finding.probability, finding.probability_sd)}"
    return words + (", in doubt" if finding.in_doubt else "") + (f", {NO_ALARM}" if silent else "")


def sent_after_s(entry: WorklistEntry) -> float | None:
    """From the last image that was new to the first report of it accepted everywhere, whatever repeated or corrected
    that later; None: not all that was said is accepted, or more came since."""
    if entry.delivered_at is None or entry.delivered_at < entry.last_image_at:
        return None
    told_at = entry.told_at or entry.delivered_at
    return max(0.0, (told_at - entry.last_image_at).total_seconds())


def still_waits(entry: WorklistEntry) -> bool:
    """Whether something of it is still to be looked at, to come, or to be sent."""
    unsent = bool(entry.deliveries) and entry.delivered_at is None and not entry.is_shadow
    return not entry.is_prior and bool(entry.pending or unsent or not entry.is_complete)


def delivery_words(entry: WorklistEntry) -> str:
    """Where the newest report stands."""
    return ", ".join(f"{destination} {word}" for destination, word, _ in delivery_states(entry)) or "-"


def delivery_states(entry: WorklistEntry) -> list[tuple[str, str, str]]:
    """Per destination of the newest report: its key, a word of DELIVERY_WORDS, and what the word means."""
    proofs = dict(entry.proofs)
    words = [(destination, delivery_word(state, proofs.get(destination))) for destination, state in entry.deliveries]
    return [(destination, word, DELIVERY_WORDS[word]) for destination, word in words]


def state_word(state: DeliveryState | NotificationState) -> str:
    """Of one object or message: as the ledger has it, and never the destination's doing where it is ours."""
    if state == DeliveryState.SHADOW:
        return SHADOW_WORD
    return STOPPED_HERE if state == DeliveryState.STOPPED else state.value.replace("_", " ")


def delivery_word(state: str, proof: str | None) -> str:
    """Of one object, or of the one of several that is least far."""
    if state == DeliveryState.NOT_NEEDED:
        return "not needed"
    if state == DeliveryState.SHADOW:
        return SHADOW_WORD
    if state == DeliveryState.REFUSED:
        return "refused"
    if state == DeliveryState.STOPPED:
        return STOPPED_HERE
    if proof == Proof.MISSING:
        return "sent again"
    if state != DeliveryState.DELIVERED:
        return "waiting"
    if proof in (Proof.COMMITTED, Proof.FOUND):
        return "proven"
    return "unproven" if proof == Proof.UNPROVEN else "delivered"
