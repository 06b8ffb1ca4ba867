"""`opentriage audit`."""

import csv
import json
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, TextIO

import typer

from config import Settings
from ledger.audit import AuditEvent, AuditKind
from ledger.ledger import Ledger
from ledger.trail import PAGE_MAX, Asked, AuditLine
from ledger.verifying import PROBLEMS_MAX, Verdict
from node.asking import existing_ledger
from node.console import ConfigOption, err, fail, progress, settings_of, usage_error
from node.files import private
from node.trail import auditing
from node.trail import heads as audit_heads

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Read, verify and export the audit trail.")

COLUMNS = ("record", "at", "kind", "outcome", "actor", "peer", "study", "patient", "detail", "seal", "digest")
StudyOption = Annotated[
    str, typer.Option("--study", metavar="UID", help="Of this study; its Study Instance UID is hashed to look it up.")
]
KindOption = Annotated[
    AuditKind | None, typer.Option("--kind", help="Of this kind only.", show_default=False, case_sensitive=False)
]
ActorOption = Annotated[
    str, typer.Option("--actor", metavar="WHO", help="By this one: ae:TITLE, user:NAME, node:ROLE.")
]
SinceOption = Annotated[
    datetime | None, typer.Option("--since", metavar="TIME", help="From then on, such as 2026-11-21T08:00; local time.")
]
UntilOption = Annotated[datetime | None, typer.Option("--until", metavar="TIME", help="Before then.")]
FailuresOption = Annotated[bool, typer.Option("--failures", help="Only what failed.")]


class Form(StrEnum):
    CSV = "csv"
    JSON = "json"


@app.command()
def verify(
    heads: Annotated[
        list[Path] | None,
        typer.Option("--heads", metavar="FILE", help="Exported heads, or logs with audit_head lines; may be repeated."),
    ] = None,
    no_heads: Annotated[
        bool, typer.Option("--no-heads", help="Without heads: an end that was cut off is not found then.")
    ] = False,
    config: ConfigOption = None,
) -> None:
    """Walk the whole hash chain and say what in it is not as it was written.

    That is an edit, a deletion, an insertion, a change of order; and, against the exported heads, an end that was cut
    off or a chain that was made anew. Without --heads the file that the settings name (audit.heads_file) is used. Exit
    status 0: all is as it was; 1: it is not.
    """
    if heads and no_heads:
        usage_error("--heads and --no-heads exclude each other")
    settings = settings_of(config)
    ledger = existing_ledger(settings)
    known = {} if no_heads else _heads(heads or [], settings)
    with progress() as bar:
        task = bar.add_task("seals", total=None)
        verdict = ledger.verify_audit(known, lambda done, total: bar.update(task, completed=done, total=total))
    if not no_heads and not known and verdict.sealed:
        verdict.found(
            f"no chain head at {', '.join(map(str, heads or [audit_heads.heads_file(settings)]))}: the file was taken "
            "away, or another machine seals (give its file with --heads, or --no-heads to do without)"
        )
    _tell(verdict)
    found = {"what": "verified", "records": verdict.records, "problems": verdict.problem_count}
    ledger.audit(AuditEvent(AuditKind.LOG_USED, auditing.person(), detail=found))
    if verdict.problem_count:
        raise typer.Exit(1)


def _heads(named: list[Path], settings: Settings) -> dict[int, set[str]]:
    """Read before the chain is: a head that comes meanwhile must not seem cut off."""
    found: dict[int, set[str]] = {}
    for path in named or [audit_heads.heads_file(settings)]:
        try:
            for sequence, digests in audit_heads.by_sequence(audit_heads.read(path)).items():
                found.setdefault(sequence, set()).update(digests)
        except OSError as error:
            if named:
                usage_error(f"--heads {path}: {error.strerror}")
    return found


def _tell(verdict: Verdict) -> None:
    for problem in verdict.problems:
        typer.echo(f"NOT AS WRITTEN: {problem.text}")
    if verdict.problem_count > PROBLEMS_MAX:
        typer.echo(f"... and {verdict.problem_count - PROBLEMS_MAX} more")
    typer.echo(
        f"{verdict.records} records, {verdict.sealed} sealed, {verdict.heads} exported heads agree, "
        f"{verdict.problem_count} problems"
    )
    if verdict.waiting:
        err.print(f"{verdict.waiting} records wait for their seal, the oldest for {verdict.waiting_s:.0f} s")
    if verdict.late:
        err.print(
            f"{verdict.late} records were sealed more than a minute after they were written: no node ran then, or "
            "their time was invented"
        )


@app.command()
def show(
    study: StudyOption = "",
    kind: KindOption = None,
    actor: ActorOption = "",
    since: SinceOption = None,
    until: UntilOption = None,
    failures: FailuresOption = False,
    limit: Annotated[int, typer.Option(min=1, max=PAGE_MAX, help="So many lines.")] = 50,
    before: Annotated[
        int | None, typer.Option(metavar="RECORD", help="The page before: older than this record's number.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object per line instead of a table.")] = False,
    config: ConfigOption = None,
) -> None:
    """Print the newest records, newest first.

    No record names a study or a patient: ask with --study for those of a study that you know.
    """
    ledger = existing_ledger(settings_of(config))
    asked = _asked(study, kind, actor, since, until, failures)
    _used(ledger, "shown", study)
    lines = ledger.audit_log(asked, before, limit)
    for line in lines:
        typer.echo(json.dumps(_record(line)) if as_json else _line(line))
    if not lines:
        err.print("no such record")
    elif len(lines) == limit:
        err.print(f"the page before: --before {lines[-1].record_id}")


@app.command()
def export(
    to: Annotated[Path, typer.Argument(metavar="FILE", help="To be written; '-' is standard output.")],
    form: Annotated[Form, typer.Option(help="csv, or json: one object per line.")] = Form.CSV,
    study: StudyOption = "",
    kind: KindOption = None,
    actor: ActorOption = "",
    since: SinceOption = None,
    until: UntilOption = None,
    failures: FailuresOption = False,
    config: ConfigOption = None,
) -> None:
    """Write all records that are asked for, newest first, with their seals."""
    ledger = existing_ledger(settings_of(config))
    asked = _asked(study, kind, actor, since, until, failures)
    _used(ledger, "exported", study)
    count, total = 0, ledger.audit_count(asked)
    try:
        with sys.stdout if to == Path("-") else _new(to) as file, progress() as bar:
            task = bar.add_task("records", total=total)
            rows = csv.writer(file)
            if form is Form.CSV:
                rows.writerow(COLUMNS)
            for line in _every(ledger, asked):
                record = _record(line)
                if form is Form.CSV:
                    rows.writerow([_cell(record[column]) for column in COLUMNS])
                else:
                    file.write(json.dumps(record) + "\n")
                count += 1
                bar.update(task, completed=count)
    except OSError as error:
        fail(f"{to}: {error.strerror}")
    err.print(f"{count} records")


def _new(path: Path) -> TextIO:
    return open(path, "x", encoding="utf-8", newline="", opener=private)


def _asked(
    study: str, kind: AuditKind | None, actor: str, since: datetime | None, until: datetime | None, failures: bool
) -> Asked:
    return Asked(study, kind=kind, actor=actor, since=since, until=until, failures_only=failures)


def _used(ledger: Ledger, what: str, study_uid: str) -> None:
    """Whoever reads the trail stands in it."""
    ledger.audit(AuditEvent(AuditKind.LOG_USED, auditing.person(), study_uid, detail={"what": what}))


def _every(ledger: Ledger, asked: Asked) -> Iterator[AuditLine]:
    before = None
    while lines := ledger.audit_log(asked, before, PAGE_MAX):
        yield from lines
        before = lines[-1].record_id


def _record(line: AuditLine) -> dict[str, Any]:
    return {
        "record": line.record_id,
        "at": line.at.astimezone(UTC).isoformat(timespec="milliseconds"),
        "kind": line.kind.value,
        "outcome": int(line.outcome),
        "actor": line.actor,
        "peer": line.peer,
        "study": line.study_key,
        "patient": line.patient_key,
        "detail": line.detail,
        "seal": line.sequence,
        "digest": line.digest,
    }


def _cell(value: Any) -> Any:
    """What a spreadsheet would take for a formula is made text: names come from the wire."""
    text = json.dumps(value, sort_keys=True) if isinstance(value, dict) else value
    return f"'{text}" if isinstance(text, str) and text.startswith(("=", "+", "-", "@", "\t")) else text


def _line(line: AuditLine) -> str:
    said = " ".join(f"{key}={_short(value)}" for key, value in line.detail.items())
    mark = "" if not line.outcome else f" FAILED({int(line.outcome)})"
    study = f" study {line.study_key[:12]}" if line.study_key else ""
    where = f" from {line.peer}" if line.peer else ""
    at = f"{line.at.astimezone():%Y-%m-%d %H:%M:%S}"
    return f"{line.record_id}\t{at}\t{line.kind.value}{mark}\t{line.actor}{where}{study}\t{said}"


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 80 else text[:77] + "..."
