"""`opentriage release`."""

from typing import Annotated

import typer

from node.console import ConfigOption, err, fail, settings_of
from node.wiring import open_ledger

app = typer.Typer(add_completion=False)


@app.command()
def release(
    job: Annotated[
        int | None, typer.Argument(metavar="[JOB]", help="Number of the parked job; without it, all are listed.")
    ] = None,
    config: ConfigOption = None,
) -> None:
    """Let a parked job run again, with fresh attempts. A job is parked when trying again would be useless:
    read its reason (`opentriage release` lists them, `opentriage explain STUDY_UID` tells the story) and remove the
    cause first."""
    ledger = open_ledger(settings_of(config))
    if job is None:
        for parked in ledger.parked():
            where = f" for {parked.destination}" if parked.destination else ""
            typer.echo(f"{parked.job_id}\t{parked.stage}{where}\t{parked.study_instance_uid}\t{parked.reason}")
        if not ledger.parked():
            err.print("no job is parked")
        return
    if not ledger.release(job):
        fail(f"there is no parked job {job}")
    err.print(f"job {job} is queued again")
