"""`opentriage explain`."""

from collections.abc import Iterator
from datetime import datetime
from typing import Annotated

import typer

from ledger.figures import probability_words, sd_words
from ledger.ledger import Ledger
from ledger.records import DeliveryState, ImageResult, Proof, ReportKind
from ledger.views import ObjectDelivery
from node.asking import existing_ledger
from node.console import ConfigOption, fail, out, settings_of
from node.places import Made, made_of
from node.triage_list import state_word
from sr_writer.profiles import name_of_kind

app = typer.Typer(add_completion=False)


@app.command()
def explain(
    study_uid: Annotated[str, typer.Argument(metavar="STUDY_UID", help="Study Instance UID, as the list shows it.")],
    config: ConfigOption = None,
) -> None:
    """Print everything that happened to one study and why: what came, what each model said of each image with its
    numbers and thresholds, what was made of it, where it went, and every retry and refusal in between."""
    ledger = existing_ledger(settings_of(config))
    events = ledger.events(study_uid)
    if not events:
        fail("this node has never received that study")
    out.print(f"Study {study_uid}\n", style="bold")
    if hold := ledger.hold(study_uid):
        out.print(f"HELD: {hold}\n", style="bold red", markup=False)
    for event in events:
        out.print(f"{event.at.astimezone():%Y-%m-%d %H:%M:%S.%f}"[:-3] + f"  {event.name}  {event.text}", markup=False)
    _images(ledger, study_uid)
    _objects(ledger, study_uid)
    _told(ledger, study_uid)


def _told(ledger: Ledger, study_uid: str) -> None:
    told = ledger.told(study_uid)
    if told:
        out.print("\nAdapters", style="bold")
    for one in told:
        what = "" if one.report_kind is ReportKind.WITHDRAWN else f", priority {one.priority}"
        line = f"{one.adapter}: {one.report_kind} report{what}: {state_word(one.state)} {one.reason}"
        out.print(line.rstrip(), markup=False)


def _images(ledger: Ledger, study_uid: str) -> None:
    out.print("\nImages", style="bold")
    for item in ledger.study_instances(study_uid):
        out.print(f"{item.instance.sop_instance_uid}  {item.instance.modality}  sha256 {item.instance.sha256[:16]}…")
        for result in item.results:
            for line in _result_lines(result):
                out.print(f"    {line}", markup=False)


def _result_lines(result: ImageResult) -> list[str]:
    who = f"{result.model.name} {result.model.version} ({result.model.digest[:12]})" if result.model else "no model"
    priority = f", priority {result.priority}" if result.priority else ""
    lines = [f"{who}: {result.status}{priority}, {result.duration_ms:.0f} ms"]
    if result.reason:
        lines.append(f"{result.reason_code}: {result.reason}")
    lines += [
        f"{finding.label}: probability {probability_words(finding.probability)} "
        f"± {sd_words(finding.probability_sd, 3)}, mutual information {finding.mutual_information:.4f} nat, "
        f"operating point {finding.operating_point:.3f}, high {finding.high_operating_point:.3f}"
        f"{', present' if finding.present else ''}{', in doubt' if finding.in_doubt else ''}"
        for finding in result.findings
    ]
    lines += [f"{mask.label}: {mask.pixels} pixels marked" for mask in result.masks]
    lines += [f"flag {flag}" for flag in result.critical_flags]
    return lines + list(result.recommendations)


def _objects(ledger: Ledger, study_uid: str) -> None:
    out.print("\nReports", style="bold")
    for made in made_of(ledger.study_objects(study_uid)):
        for line in _object_lines(made):
            out.print(line, markup=False)


def _object_lines(made: Made) -> Iterator[str]:
    """Each form that went, or is to go, anywhere; those that are not needed in one line."""
    for uid in dict.fromkeys(place.sop_instance_uid for place in made.places):
        yield f"{made.report_kind} report: {name_of_kind(made.kind)} {uid}"
        yield from (f"    {_where(place)}" for place in made.places if place.sop_instance_uid == uid)
    if made.spare:
        forms = len({one.sop_instance_uid for one in made.spare})
        where = ", ".join(sorted({one.destination or "" for one in made.spare}))
        yield f"    {where}: not needed in {forms} other {'form' if forms == 1 else 'forms'}"


def _where(made: ObjectDelivery) -> str:
    """One line for the delivery, one for the proof."""
    if made.destination is None or made.state is None:
        return "no destination"
    if made.tries == 0 and made.state is DeliveryState.WAITING:
        return f"{made.destination}: waiting, no answer yet {made.reason}".rstrip()
    answer = f" 0x{made.status:04X}" if made.status is not None else ""
    tries = {0: ", never sent,", 1: " after 1 try"}.get(made.tries, f" after {made.tries} tries")
    context = f" as {made.context}" if made.context else ""
    when = f"{tries}{_at(made.changed_at)}"
    line = f"{made.destination}: {state_word(made.state)}{answer}{when}{context} {made.reason}".rstrip()
    return line if made.proof is Proof.NONE else f"{line}\n    {_proof(made)}"


def _proof(made: ObjectDelivery) -> str:
    if made.proof is Proof.WAITING:
        return "proof: not asked yet, or the answer is still to come"
    return f"proof: {made.proof}{_at(made.proven_at)} {made.proof_text}".rstrip()


def _at(moment: datetime | None) -> str:
    return f" at {moment.astimezone():%Y-%m-%d %H:%M:%S}" if moment else ""
