"""`opentriage look-again`."""

from typing import Annotated

import typer

from node.asking import STUDY_HELP, existing_ledger, study_named
from node.console import ConfigOption, err, fail, reason_given, settings_of
from node.trail.auditing import person

app = typer.Typer(add_completion=False)
CAUSE = "A person asked for it."


@app.command("look-again")
def look_again(
    study_uid: Annotated[str, typer.Argument(metavar="STUDY_UID", help=STUDY_HELP)],
    reason: Annotated[str, typer.Option(metavar="TEXT", help="Why, as a new report shall say it.")] = CAUSE,
    config: ConfigOption = None,
) -> None:
    """Let the installed models look at a study's images again, after a model was replaced, repaired or added, or a
    report was recalled. A new report follows only where it says something else."""
    cause = reason_given(reason) or CAUSE
    ledger = existing_ledger(settings_of(config))
    count = ledger.look_again(study_named(ledger, study_uid), cause, person())
    if not count:
        fail("no image of that study is to be looked at again: unknown, rejected, not for a model, or waiting already")
    err.print(f"{count} {'image is' if count == 1 else 'images are'} queued to be looked at again")
