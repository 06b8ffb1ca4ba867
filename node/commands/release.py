"""`opentriage release`."""

from typing import Annotated

import typer

from config import Settings
from ledger.ledger import Ledger
from ledger.records import Stage
from ledger.views import ParkedJob
from node.asking import existing_ledger
from node.console import ConfigOption, err, fail, settings_of, usage_error
from node.trail.auditing import accessed, person
from node.watching.stranded import parked_for, stranded

app = typer.Typer(add_completion=False)


@app.command()
def release(
    job: Annotated[
        int | None, typer.Argument(metavar="[JOB]", help="Number of the parked job; without it, all are listed.")
    ] = None,
    all_for: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="All parked jobs of this destination, or adapter, instead of one."),
    ] = None,
    old: Annotated[
        str | None, typer.Option("--from", metavar="DESTINATION", help="Redirect all that waits for this destination.")
    ] = None,
    new: Annotated[
        str | None, typer.Option("--to", metavar="DESTINATION", help="The destination of the settings to send it to.")
    ] = None,
    drop: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Give up the messages, or the proofs, that wait for NAME, of no settings."),
    ] = None,
    config: ConfigOption = None,
) -> None:
    """Let a parked job run again, with fresh attempts. A job is parked when trying again would be useless:
    read its reason (`opentriage release` lists them, `opentriage explain STUDY_UID` tells the story) and remove the
    cause first. What a destination refused while it was set wrong goes with --all-for NAME, in one record each of the
    audit trail. A destination that changed its address without having a name keeps its reports under the old one:
    --from OLD --to NEW redirects them. What waits for an adapter that is gone for good is given up by --drop NAME; so
    is the question whether a destination that is gone still holds what it accepted."""
    settings = settings_of(config)
    if (old is None) != (new is None) or sum(one is not None for one in (job, all_for, old, drop)) > 1:
        usage_error("give a JOB, or --all-for, or both --from and --to, or --drop, or nothing to list the parked jobs")
    ledger = existing_ledger(settings)
    if old is not None and new is not None:
        _redirect(ledger, settings, old, new)
    elif drop is not None:
        _drop(ledger, settings, drop)
    elif all_for is not None:
        _release_all(ledger, settings, all_for)
    elif job is not None:
        _release(ledger, settings, job)
    else:
        _list(ledger)


def _redirect(ledger: Ledger, settings: Settings, old: str, new: str) -> None:
    keys = [destination.key for destination in settings.destinations]
    if new not in keys:
        usage_error(f"{new} is no destination of the settings; there are: {', '.join(keys) or 'none'}")
    if old == new:
        usage_error("--from and --to are the same destination")
    moved = ledger.redirect(old, new, person())
    if not moved:
        fail(f"nothing waits for {old}")
    err.print(f"{moved} deliveries go to {new} now", markup=False)


def _drop(ledger: Ledger, settings: Settings, name: str) -> None:
    """Only what nobody works on any more."""
    lost = {one.stage: one for one in stranded(ledger, settings) if one.name == name}
    if Stage.DELIVER in lost:
        fail(f"reports wait for {name}, and are not to be lost: {lost[Stage.DELIVER].cure}")
    why = "A person gave it up: the settings no longer name it."
    ended = ledger.stop_telling(name, why, person()) if Stage.NOTIFY in lost else 0
    ended += ledger.stop_asking(name, why, person()) if Stage.PROVE in lost else 0
    if not ended:
        fail(f"nothing that could be given up waits for {name}; what the settings name is not given up")
    err.print(f"{ended} {'job is' if ended == 1 else 'jobs are'} given up")


def _release(ledger: Ledger, settings: Settings, job: int) -> None:
    parked = next((one for one in ledger.parked() if one.job_id == job), None)
    if parked is None:
        fail(f"there is no parked job {job}")
    _insist_on_somebody(parked, settings)
    ledger.release(job, person())
    err.print(f"job {job} is queued again")


def _insist_on_somebody(parked: ParkedJob, settings: Settings) -> None:
    whom = parked_for(parked)
    if whom and not whom.is_named(settings):
        where = f"the adapter {whom.name}" if whom.stage is Stage.NOTIFY else whom.name
        fail(f"job {parked.job_id} is for {where}, which the settings do not name: {whom.cure}")


def _release_all(ledger: Ledger, settings: Settings, name: str) -> None:
    parked = [one for one in ledger.parked() if one.destination == name]
    known = [peer.key for peer in (*settings.destinations, *settings.adapters)]
    if not parked and name not in known:
        usage_error(f"{name} is no destination or adapter of the settings; there are: {', '.join(known) or 'none'}")
    for one in parked:
        _insist_on_somebody(one, settings)
    released = sum(ledger.release(one.job_id, person()) for one in parked)
    if not released:
        fail(f"no job for {name} is parked")
    err.print(f"{released} {'job' if released == 1 else 'jobs'} for {name} {_are(released)} queued again", markup=False)


def _are(count: int) -> str:
    return "is" if count == 1 else "are"


def _list(ledger: Ledger) -> None:
    accessed(ledger, "parked")
    jobs = ledger.parked()
    for parked in jobs:
        where = f" for {parked.destination}" if parked.destination else ""
        typer.echo(f"{parked.job_id}\t{parked.stage}{where}\t{parked.study_instance_uid}\t{parked.reason}")
    if not jobs:
        err.print("no job is parked")
