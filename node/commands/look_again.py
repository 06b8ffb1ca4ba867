"""`opentriage look-again`."""

from typing import Annotated

import typer

from node.asking import existing_ledger
from node.console import ConfigOption, err, fail, reason_given, settings_of

app = typer.Typer(add_completion=False)
CAUSE = "A person asked for it."


@app.command("look-again")
def look_again(
    study_uid: Annotated[str, typer.Argument(metavar="STUDY_UID", help="Study Instance UID, as the list shows it.")],
    reason: Annotated[str, typer.Option(metavar="TEXT", help="Why, as a new report shall say it.")] = CAUSE,
    config: ConfigOption = None,
) -> None:
    """Let the installed models look at a study's images again, after a model was replaced, repaired or added, or a
    report was recalled. A new report follows only where it says something else."""
    cause = reason_given(reason) or CAUSE
    count = existing_ledger(settings_of(config)).look_again(study_uid, cause)
    if not count:
        fail("no image of that study is to be looked at again: unknown, rejected, not for a model, or waiting already")
    err.print(f"{count} {'image is' if count == 1 else 'images are'} queued to be looked at again")
