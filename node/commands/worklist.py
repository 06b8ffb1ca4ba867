"""`opentriage worklist`."""

import json
from datetime import datetime
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from ledger.slices import as_objects
from ledger.worklist import WorklistEntry
from node.asking import existing_ledger
from node.console import ConfigOption, JsonOption, err, out, settings_of
from node.telling.triage_list import STYLES, began, delivery_words, finding_words, priority_word
from node.trail.auditing import accessed

app = typer.Typer(add_completion=False)


@app.command()
def worklist(
    config: ConfigOption = None,
    as_json: JsonOption = False,
    days: Annotated[int, typer.Option(min=0, help="Also of so many days before the last 24 hours.")] = 0,
    hidden: Annotated[bool, typer.Option("--hidden", help="Also the studies that no model is meant for.")] = False,
) -> None:
    """Print the triage list of the day, most urgent first. Studies are named by their UID, never by a person."""
    ledger = existing_ledger(settings_of(config))
    accessed(ledger, "worklist")
    entries = ledger.worklist(began(days), hidden)
    if as_json:
        for entry in entries:
            typer.echo(json.dumps(as_object(entry)))
    elif entries:
        out.print(table(entries))
    else:
        err.print("no study of the day is on the list")


def as_object(entry: WorklistEntry) -> dict[str, Any]:
    """One line of `worklist --json`."""
    return {
        "schema_version": 1,
        "study_instance_uid": entry.study_instance_uid,
        "priority": entry.priority,
        "prior": entry.is_prior,
        "complete": entry.is_complete,
        "modality": entry.modality,
        "instances": entry.instances,
        "pending": entry.pending,
        "findings": [
            {
                "label": finding.label,
                "probability": finding.probability,
                "probability_sd": finding.probability_sd,
                "present": finding.present,
                "in_doubt": finding.in_doubt,
            }
            for finding in entry.findings
        ],
        "slices_marked": as_objects(entry.slices_marked, "label"),
        "slices_refused": as_objects(entry.slices_refused, "reason"),
        "critical_flags": list(entry.critical_flags),
        "recommendations": list(entry.recommendations),
        "not_assessed_reason": entry.not_assessed_reason,
        "first_received_at": entry.first_received_at.isoformat(),
        "last_received_at": entry.last_received_at.isoformat(),
        "hold": entry.hold,
        "report_kind": entry.report_kind,
        "delivered_at": _iso(entry.delivered_at),
        "deliveries": dict(entry.deliveries),
    }


def _iso(moment: datetime | None) -> str | None:
    return moment.isoformat() if moment else None


def table(entries: list[WorklistEntry]) -> Table:
    """The triage list for a terminal of 80 columns: a study's UID stays whole on its line, to be copied."""
    made = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    made.add_column("priority", no_wrap=True)
    made.add_column("study, when it was received, and findings", overflow="fold")
    for entry in entries:
        word = priority_word(entry)
        made.add_row(Text(word, style=STYLES.get(word, "")), entry.study_instance_uid)
        images = f"{entry.last_received_at.astimezone():%H:%M:%S}  {entry.modality} x{entry.instances}"
        lines = [f"{images}  {finding_words(entry)}", *([delivery_words(entry)] if entry.deliveries else [])]
        made.add_row("", Text("\n".join(lines), style="dim"))
    return made
