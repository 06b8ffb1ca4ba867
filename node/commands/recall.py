"""`opentriage recall`."""

from typing import Annotated

import typer

from node.asking import STUDY_HELP, existing_ledger, study_named
from node.console import ConfigOption, confirmed, err, fail, reason_given, settings_of, usage_error
from node.trail.auditing import person

app = typer.Typer(add_completion=False)
SHOWN = 10


@app.command()
def recall(
    reason: Annotated[str, typer.Option(metavar="TEXT", help="Why, as the withdrawn report shall say it.")],
    model: Annotated[
        str | None,
        typer.Option(metavar="NAME[@VERSION]", help="Every study whose newest report rests on this model package."),
    ] = None,
    study: Annotated[str | None, typer.Option(metavar="UID", help=f"This study alone: its {STUDY_HELP}")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask first.")] = False,
    config: ConfigOption = None,
) -> None:
    """Withdraw reports: a superseding report that says withdrawn, and why, follows each to wherever it went, and what
    has not left yet stays. What was said of the images is not said again until `opentriage look-again STUDY_UID`
    or new images come. Never put a patient's name into the reason."""
    reason = reason_given(reason)
    if (model is None) == (study is None):
        usage_error("give either --model NAME[@VERSION] or --study UID")
    if not reason:
        usage_error("--reason needs a sentence: it stands in the withdrawn report")
    identity = _identity(model) if model is not None else None
    ledger = existing_ledger(settings_of(config))
    study = None if study is None else study_named(ledger, study)
    found = ledger.to_recall(study, identity)
    if not found:
        fail("no report to withdraw: none was made, none rests on that model, or it is withdrawn already")
    _show(found)
    if not yes and not confirmed(f"Withdraw the newest report of {_studies(len(found))}?"):
        fail("nothing was withdrawn")
    count = ledger.recall(reason, study, identity, person())
    err.print(f"{_studies(count)} will be withdrawn; `opentriage explain STUDY_UID` tells how far it is")


def _identity(model: str) -> tuple[str, str | None]:
    name, at, version = model.partition("@")
    if not name or (at and not version):
        usage_error(f"{model!r} is not NAME or NAME@VERSION, for example chest-pneumonia@1.2.0")
    return name, version or None


def _show(found: list[str]) -> None:
    err.print(f"{_studies(len(found))} would be withdrawn:")
    for uid in found[:SHOWN]:
        err.print(f"  {uid}", highlight=False)
    if len(found) > SHOWN:
        err.print(f"  and {len(found) - SHOWN} more")


def _studies(count: int) -> str:
    return "1 study" if count == 1 else f"{count} studies"
