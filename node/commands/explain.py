"""`opentriage explain`."""

from typing import Annotated

import typer

from config import Settings
from ledger.damage import CURE
from ledger.ledger import Ledger
from node.asking import STUDY_HELP, existing_ledger, study_named
from node.console import ConfigOption, fail, out, settings_of, usage_error
from node.telling.caller import said_of
from node.telling.places import made_of
from node.telling.story import object_lines, result_lines, told_line
from node.trail.auditing import accessed

app = typer.Typer(add_completion=False)


@app.command()
def explain(
    study_uid: Annotated[str | None, typer.Argument(metavar="STUDY_UID", help=STUDY_HELP)] = None,
    peer: Annotated[
        str | None,
        typer.Option(
            metavar="AE",
            help="Calling AE title of a sender, instead of a study: what came from it, how it sends, and which "
            "associations, presentation contexts and instances of it were refused. Look here for images "
            "that never arrive.",
        ),
    ] = None,
    config: ConfigOption = None,
) -> None:
    """Print everything that happened to one study and why: what came, what made it complete, what each model said of
    each image with its numbers and thresholds, what was made of it, where it went, and every retry and refusal in
    between. With --peer: what is known of one sender."""
    settings = settings_of(config)
    if (study_uid is None) == (peer is None):
        usage_error("explain: name a study by its Study Instance UID, or a sender with --peer")
    if peer is not None:
        _peer(existing_ledger(settings), settings, peer.strip())
    elif study_uid is not None:
        if settings.node.mode == "shadow":
            out.print("SHADOW MODE: nothing leaves but what takes back a report sent before.\n", style="bold")
        ledger = existing_ledger(settings)
        _study(ledger, study_named(ledger, study_uid))


def _peer(ledger: Ledger, settings: Settings, title: str) -> None:
    known = {one.calling_ae_title: one for one in ledger.peers()}
    if title not in known:
        others = f"those that have: {', '.join(sorted(known))}" if known else "nobody has"
        fail(f"no {title!r} has called this node; {others}")
    out.print(f"Sender {title}\n", style="bold", markup=False)
    for line in said_of(known[title], ledger, settings):
        out.print(line, markup=False, style="bold" if line and not line.startswith(" ") else None)


def _study(ledger: Ledger, study_uid: str) -> None:
    accessed(ledger, "explained", study_uid)
    events = ledger.events(study_uid)
    if not events:
        fail("this node does not know that study: never received, removed after its time, or erased by `forget`")
    out.print(f"Study {study_uid}\n", style="bold")
    if hold := ledger.hold(study_uid):
        out.print(f"HELD: {hold}\n", style="bold red", markup=False)
    for event in events:
        out.print(f"{event.at.astimezone():%Y-%m-%d %H:%M:%S.%f}"[:-3] + f"  {event.name}  {event.text}", markup=False)
    _still_to_leave(ledger, study_uid)
    _waits(ledger, study_uid)
    _images(ledger, study_uid)
    _objects(ledger, study_uid)
    _told(ledger, study_uid)


def _still_to_leave(ledger: Ledger, study_uid: str) -> None:
    """The story tells of a try that failed as the one before it only here."""
    left = ledger.still_to_leave(study_uid)
    if left:
        out.print("\nTried again until it succeeds", style="bold")
    for one in left:
        tries = f"{one.tries} {'try' if one.tries == 1 else 'tries'}"
        when = f"{one.due_at.astimezone():%Y-%m-%d %H:%M:%S}"
        out.print(f"{one.stage} for {one.destination}: {tries} so far, due again at {when}: {one.reason}", markup=False)


def _waits(ledger: Ledger, study_uid: str) -> None:
    waiting = ledger.waiting(study_uid)
    if waiting is None:
        return
    out.print("\nNot complete yet", style="bold")
    for one in waiting.missing:
        line = f"{one.calling_ae_title} asked to commit {one.listed} instances: {one.missing} of them are missing."
        out.print(line, markup=False)
    when = f"{waiting.due_at.astimezone():%Y-%m-%d %H:%M:%S}"
    out.print(f"If nothing more comes it is taken as complete at {when}, because: {waiting.because}", markup=False)


def _told(ledger: Ledger, study_uid: str) -> None:
    told = ledger.told(study_uid)
    if told:
        out.print("\nAdapters", style="bold")
    for one in told:
        out.print(told_line(one), markup=False)


def _images(ledger: Ledger, study_uid: str) -> None:
    out.print("\nImages", style="bold")
    damaged = ledger.damaged_of(study_uid)
    for item in ledger.study_instances(study_uid):
        out.print(f"{item.instance.sop_instance_uid}  {item.instance.modality}  sha256 {item.instance.sha256[:16]}…")
        if item.instance.instance_id in damaged:
            out.print(f"    its stored file is DAMAGED or gone; {CURE}", style="bold red", markup=False)
        for result in item.results:
            for line in result_lines(result):
                out.print(f"    {line}", markup=False)


def _objects(ledger: Ledger, study_uid: str) -> None:
    out.print("\nReports", style="bold")
    for made in made_of(ledger.study_objects(study_uid)):
        for line in object_lines(made):
            out.print(line, markup=False)
