"""`opentriage opinions`."""

from pathlib import Path
from typing import Annotated

import typer

from ledger.audit import AuditEvent, AuditKind
from node.asking import existing_ledger
from node.console import ConfigOption, err, fail, settings_of
from node.telling.opinions_csv import as_csv
from node.trail.auditing import person

app = typer.Typer(add_completion=False, no_args_is_help=True)


@app.callback()
def opinions() -> None:
    """What readers said of findings on the page: they agreed or they did not."""


@app.command()
def export(
    output: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="Where to write; without it, standard output.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(metavar="NAME", help="Only what was said of this model, such as chest-pneumonia.")
    ] = None,
    config: ConfigOption = None,
) -> None:
    """Write a table of images with what readers say is to be seen in them, as `opentriage validate` reads it.

    A line for each stored image on which somebody has given an opinion; a column for each finding: 1 it is there, 0 it
    is not, empty where readers contradict each other. The newest word of each person counts. No patient is named: the
    column `patient` numbers them for this table alone. Then:

        opentriage validate FILE --model NAME --out DIR

    Such a table is no fair sample: readers who saw the model's answer first are swayed by it, and mostly flagged
    studies are judged. Read its figures as a watch for what goes wrong, not as the model's accuracy.
    """
    settings = settings_of(config)
    ledger = existing_ledger(settings)
    images = ledger.labelled_images(model)
    if not images:
        fail("nobody has given an opinion yet" + (f" on {model}" if model else ""))
    ledger.audit(AuditEvent(AuditKind.EXPORT, person(), detail={"what": "opinions", "images": len(images)}))
    text = as_csv(images, ledger.store)
    if output is None:
        typer.echo(text, nl=False)
        return
    try:
        output.write_text(text, encoding="utf-8")
    except OSError as error:
        fail(f"{output}: cannot be written: {error.strerror}")
    err.print(f"{text.count(chr(10)) - 1} images in {output}", markup=False)
