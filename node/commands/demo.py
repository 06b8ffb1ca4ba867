"""`opentriage demo`."""

import sys
from pathlib import Path
from typing import Annotated

import typer
from pydicom import dcmread
from rich.table import Table
from rich.text import Text

from ledger.errors import OpenTriageError
from ledger.records import TriagePriority
from ledger.worklist import WorklistEntry
from node.console import err, fail, out, progress, usage_error
from node.files import missing, walk
from node.telling.sr_tree import tree_lines
from node.telling.triage_list import STYLES, finding_words, priority_word
from node.trying.demo import COMPLETE_AFTER_S, Demo, fresh_samples
from node.trying.sending import Sent

app = typer.Typer(add_completion=False)


@app.command()
def demo(
    paths: Annotated[
        list[Path] | None, typer.Argument(metavar="[PATH...]", help="Your own DICOM files instead of the samples.")
    ] = None,
) -> None:
    """Show the whole path: a node and a stand-in PACS start on free loopback ports in a throwaway folder, studies are
    sent by C-STORE, and what comes back to the PACS is printed. The six samples are synthetic chests of invented
    children. Nothing leaves this machine; the folder stays until you delete it."""
    if absent := missing(paths or []):
        usage_error(f"no such file or folder: {', '.join(map(str, absent))}")
    shown = Demo()
    try:
        _show(shown, paths or [])
    except OpenTriageError as error:
        fail(str(error))
    finally:
        shown.stop()


def _show(shown: Demo, paths: list[Path]) -> None:
    files = list(walk(paths)) if paths else fresh_samples(shown.folder / "sent")
    with progress() as bar:
        task = bar.add_task("starting the node", total=None)
        shown.start(own_files=bool(paths))
        bar.update(task, description="sending", total=len(files), completed=0)

        def note(one: Sent) -> None:
            bar.advance(task)

        shown.send(files, note)
        bar.update(task, description="looking and reporting")
        entries = shown.wait(lambda done, known: bar.update(task, completed=done, total=known))
    out.print(_table(shown, entries))
    unsent = [one for one in shown.sent if one.status != 0]
    for one in unsent:
        err.print(f"not taken: {one.path}: {one.text or f'status 0x{one.status or 0:04X}'}", markup=False)
    _print_report(shown, entries)
    _print_places(shown)
    if not paths and any(shown.seconds_to_pacs(entry) is None for entry in entries):
        fail(f"a sample did not come back to the PACS; the node's log is {shown.log}")


def _table(shown: Demo, entries: list[WorklistEntry]) -> Table:
    table = Table(
        title="Triage list",
        caption="For research. Not a diagnosis. An unflagged study is reported when it is complete: here "
        f"{COMPLETE_AFTER_S:g} s after its last image.",
    )
    for heading in ("study", "priority", "findings (probability ± sd)"):
        table.add_column(heading, overflow="fold")
    table.add_column("s from last byte to PACS", justify="right")
    for entry in entries:
        word, seconds = priority_word(entry), shown.seconds_to_pacs(entry)
        table.add_row(
            f"…{entry.study_instance_uid[-12:]}",
            Text(word, style=STYLES.get(word, "")),
            finding_words(entry),
            "-" if seconds is None else f"{seconds:.2f}",
        )
    return table


def _print_report(shown: Demo, entries: list[WorklistEntry]) -> None:
    """The tree of one report: of the most urgent study, its measurements if it has them."""
    for entry in entries:
        reports = [arrival for arrival in shown.arrivals(entry.study_instance_uid) if arrival.modality == "SR"]
        if not reports:
            continue
        trees = [dcmread(arrival.path) for arrival in reports]
        flagged = entry.priority in (TriagePriority.HIGH, TriagePriority.MEDIUM)
        chosen = max(range(len(trees)), key=lambda i: len(list(tree_lines(trees[i])))) if flagged else 0
        out.print(f"\nThe report {reports[chosen].path.name}, study …{entry.study_instance_uid[-12:]}", style="bold")
        for line in tree_lines(trees[chosen]):
            out.print(line, markup=False)
        return
    err.print("no report was made: no model is meant for these files")


def _print_places(shown: Demo) -> None:
    out.print(f"\nWhat the PACS got:  {shown.folder / 'pacs'}", markup=False)
    for picture in shown.overlays():
        out.print(f"Overlay:            {picture}", markup=False)
    out.print(f"Node's log:         {shown.log}", markup=False)
    out.print(f"Try:                {_program()} worklist --config {shown.config}", markup=False)


def _program() -> str:
    """How to call this program again: by its path, for nobody has activated the environment."""
    path = Path(sys.executable).with_name("opentriage")
    return str(path) if path.is_file() else f"{sys.executable} -m node.cli"
