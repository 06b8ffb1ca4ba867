"""How a report says that it follows another: in the words of the report, and in the name of its series.

Viewers show no Predecessor Documents, and the earlier objects stay beside the new ones: only words tell them apart.
"""

from ledger.records import EarlierReport, ReportKind, TriagePriority
from sr_writer.dress import Report
from sr_writer.words import DO_NOT_USE, FLAGGED, reason_of, series_description

_MORE = "more of the study was looked at"


def follow_lines(report: Report) -> list[str]:
    """Which report this one follows and why, for whoever has that one too; none where nobody has it."""
    before = report.findings.follows
    if before is None or not report.findings.predecessors:
        return []
    when = report.header.local(before.reported_at).strftime("%Y-%m-%d %H:%M")
    if before.kind is ReportKind.WITHDRAWN:
        return [f"Follows the AI result that was withdrawn on {when}."]
    if before.kind is ReportKind.PROVISIONAL and before.priority is report.findings.priority:
        follows = f"Follows the provisional AI report of {when} ({_said(before)})."
        return [follows, "Nothing changed."] if report.findings.confirms else [follows]
    why = reason_of(report.findings.cause or _MORE)
    return [f"Replaces the AI report of {when} ({_said(before)}).", f"Why: {why}.", DO_NOT_USE]


def series_name(report: Report, what: str) -> str:
    """Series Description; of a report that follows another with its number, since both stand in one list. The number
    comes first: lists cut off what is long."""
    if report.withdrawn:
        return series_description(None, what)
    number = f"{_ordinal(report.findings.revision + 1)} " if report.findings.predecessors else ""
    return series_description(report.findings.priority, number + what)


def _ordinal(number: int) -> str:
    """2nd, 3rd, 11th."""
    ending = {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{'th' if number % 100 in (11, 12, 13) else ending}"


def _said(before: EarlierReport) -> str:
    if before.priority in FLAGGED:
        return before.priority.value
    return "not assessed" if before.priority is TriagePriority.NOT_ASSESSED else "no flagged finding"
