"""`opentriage send`."""

from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from node.console import EXIT_FAILED, err, fail, progress, usage_error
from node.files import missing, walk
from node.sending import NoAssociation, Peer, Sent, send_files

app = typer.Typer(add_completion=False)


@app.command()
def send(
    paths: Annotated[list[Path], typer.Argument(metavar="PATH...", help="DICOM files, and folders of them.")],
    to: Annotated[str, typer.Option(metavar="AE@HOST:PORT", help="Who receives, e.g. OPENTRIAGE@127.0.0.1:11112.")],
) -> None:
    """Send DICOM files by C-STORE as they are: no byte of a data set is changed.

    Prints how many files got which status. Exit status 0 when every file was stored, 1 when one was not.
    """
    try:
        peer = Peer.parse(to)
    except ValueError as error:
        usage_error(str(error))
    if absent := missing(paths):
        usage_error(f"no such file or folder: {', '.join(map(str, absent))}")
    sent: list[Sent] = []
    files = list(walk(paths))
    try:
        with progress() as bar:
            task = bar.add_task(f"sending to {to}", total=len(files))

            def note(one: Sent) -> None:
                sent.append(one)
                bar.advance(task)

            send_files(files, peer, note)
    except NoAssociation as error:
        fail(str(error))
    _summarise(sent)
    if any(one.status != 0 for one in sent) or not sent:
        raise typer.Exit(EXIT_FAILED)


def _summarise(sent: list[Sent]) -> None:
    counts = Counter("not sent" if one.status is None else f"0x{one.status:04X}" for one in sent)
    for status, count in sorted(counts.items()):
        typer.echo(f"{status}\t{count}")
    for one in sent:
        if one.status != 0:
            err.print(f"{one.path}: {one.text or f'refused with status 0x{one.status or 0:04X}'}", markup=False)
