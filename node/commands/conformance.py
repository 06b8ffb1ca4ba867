"""`opentriage conformance`."""

from pathlib import Path
from typing import Annotated

import typer

from node.conformance import FILE, statement
from node.console import fail

app = typer.Typer(add_completion=False)
_ROOT = Path(__file__).parents[2]


@app.command()
def conformance(
    write: Annotated[bool, typer.Option("--write", help=f"Write it to {FILE} of the source tree.")] = False,
    check: Annotated[bool, typer.Option("--check", help=f"Say whether {FILE} of the source tree is this.")] = False,
) -> None:
    """Print the DICOM conformance statement (PS3.2): what is accepted, sent, answered and written, and what is not
    supported, from the very tables that the program uses, for the default settings.

    With --check the exit status is 1 when the file in the source tree says something else.
    """
    path, text = _ROOT / FILE, statement()
    if write:
        if not path.parent.is_dir():
            fail(f"there is no {path.parent}: --write is for a source tree")
        path.write_text(text, encoding="utf-8")
    elif check:
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            fail(f"{FILE} is not what the code does: run `opentriage conformance --write`, read the difference")
    else:
        typer.echo(text, nl=False)
