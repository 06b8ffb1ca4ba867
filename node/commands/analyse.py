"""`opentriage analyse`."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from inference.analyser import Analyser, Source
from inference.package import installed
from inference.picture_kinds import PICTURE_KINDS
from ledger.errors import OpenTriageError
from ledger.figures import with_sd
from ledger.records import InstanceResults
from node.console import EXIT_FAILED, ConfigOption, JsonOption, err, fail, progress, settings_of, usage_error
from node.files import missing, walk
from node.logging import configure
from node.looking.analysing import lines, look, source_of
from node.looking.output import Scratch, write_studies
from node.looking.volumes import Series
from node.telling.triage_list import NO_FLAG

KINDS = tuple(PICTURE_KINDS)
NOT_RAISED = "marked by a model that may not raise a priority; other disease was not looked for"
app = typer.Typer(add_completion=False)


@app.command()
def analyse(
    paths: Annotated[list[Path], typer.Argument(metavar="PATH...", help="DICOM files, and folders of them.")],
    as_json: JsonOption = False,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write the DICOM objects the node would send, and overlays.")
    ] = None,
    as_kind: Annotated[
        str | None,
        typer.Option("--as", metavar="KIND", help=f"What PNG and JPEG files are pictures of: {' or '.join(KINDS)}."),
    ] = None,
    age: Annotated[
        float | None, typer.Option(min=0, max=150, metavar="YEARS", help="Age of the patient in PNG and JPEG files.")
    ] = None,
    config: ConfigOption = None,
) -> None:
    """Look at files as the node would, without a network; the age of a study plays no part here.

    One line per instance and model. With --json each is an object: status is analysed, not_assessed (a model is meant
    for it but may not or cannot look: reason says why), not_applicable (no model is meant for it) or failed.
    A slice model (its lines have masks: pixels marked by label) adds a line with "volume" for each series and label.
    Pictures need --as and are marked unverified_input. Exit status 0 when every path got a line.
    """
    _check_usage(paths, as_kind, age)
    settings = settings_of(config)
    configure(settings.node.log_level if settings.node.log_level != "info" else "error", "analyse")
    scratch = Scratch() if out is not None else None
    try:
        found = installed(settings.look)
        analyser = Analyser(settings, found.packages, scratch.store if scratch else None, refused=found.refused)
    except OpenTriageError as error:
        fail(str(error))
    for one in analyser.refused:
        err.print(one.sentence, style="bold red", markup=False, soft_wrap=True)
    sources = [source_of(path, as_kind, age) for path in walk(paths)]
    kept: list[InstanceResults] = []
    series = Series()
    try:
        with progress() as bar:
            task = bar.add_task("looking", total=len(sources))
            for number, (source, looked) in enumerate(look(analyser, sources, settings), start=1):
                for line in lines(source.path, looked):
                    typer.echo(json.dumps(line) if as_json else _words(line))
                series.add(source.path, looked)
                if scratch and (item := scratch.keep(source.path, looked, number)):
                    kept.append(item)
                bar.advance(task)
        for line, words in series.lines():
            typer.echo(json.dumps(line) if as_json else words)
        if scratch and out:
            _write(kept, scratch, settings, out)
    finally:
        analyser.close()
        if scratch:
            scratch.close()
    _check_all_got_a_line(paths, sources)


def _check_usage(paths: list[Path], as_kind: str | None, age: float | None) -> None:
    if absent := missing(paths):
        usage_error(f"no such file or folder: {', '.join(map(str, absent))}")
    if as_kind is not None and as_kind not in KINDS:
        usage_error(f"--as must be {' or '.join(KINDS)}")
    if age is not None and as_kind is None:
        usage_error("--age belongs to --as: the age in a DICOM file is taken from its header")


def _write(kept: list[InstanceResults], scratch: Scratch, settings: Any, out: Path) -> None:
    out.mkdir(mode=0o700, parents=True, exist_ok=True)
    written, problems = write_studies(kept, scratch.store, settings, out)
    for path in written:
        err.print(f"wrote {path}", markup=False, soft_wrap=True)
    if not written and not problems:
        err.print("nothing to write: no DICOM instance here is one that a model is meant for")
    for problem in problems:
        err.print(problem, markup=False)


def _words(line: dict[str, Any]) -> str:
    findings = "; ".join(
        f"{finding['label']} {with_sd(finding['probability'], finding['probability_sd'])}{_boxes(finding)}"
        for finding in line["findings"]
    )
    findings += "".join(f"; {mask['label']}: {mask['pixels']} pixels marked" for mask in line.get("masks", []))
    flagged = line["priority"] if line["priority"] not in (None, "LOW") else ""
    quiet = NOT_RAISED if any(finding["present"] for finding in line["findings"]) else NO_FLAG
    said = line["reason"] or (f"{flagged} {findings}" if flagged else f"{findings}; {quiet}")
    return f"{line['path']}\t{line['status']}\t{said}"


def _boxes(finding: dict[str, Any]) -> str:
    count = len(finding.get("regions", ()))
    return f" ({count} box{'es' * (count > 1)})" if count else ""


def _check_all_got_a_line(paths: list[Path], sources: list[Source]) -> None:
    seen = {source.path for source in sources}
    empty = [path for path in paths if path not in seen and not any(path in other.parents for other in seen)]
    if empty:
        err.print(f"no file in {', '.join(map(str, empty))}", markup=False)
        raise typer.Exit(EXIT_FAILED)
