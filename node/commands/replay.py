"""`opentriage replay`."""

import csv
import json
import tempfile
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, TextIO

import typer

from config import Settings
from inference.analyser import Analyser
from inference.package import Package, installed, load_package
from ledger.errors import OpenTriageError
from ledger.ledger import Ledger
from ledger.store import Store
from node.asking import existing_ledger
from node.console import ConfigOption, err, fail, out, progress, settings_of, usage_error
from node.files import private
from node.logging import configure
from node.looking.replay_page import page, summary, word
from node.looking.replaying import Replay, Replayed, Tally
from node.since import HELP, since

app = typer.Typer(add_completion=False)
COLUMNS = (
    "study_instance_uid",
    "first_received_at",
    "before",
    "after",
    "sop_instance_uid",
    "said_before",
    "said_after",
)


@app.command()
def replay(
    out_dir: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="DIR",
            help="Where the page, the table and the JSON go. Without it, a new folder opentriage-replay-DAY-TIME where "
            "you are.",
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Package: NAME, NAME/VERSION, or the folder that holds its manifest."),
    ] = None,
    settings_file: Annotated[
        Path | None,
        typer.Option(
            "--settings",
            metavar="FILE",
            help="Settings to decide by instead of the node's, such as others in "
            "decide.thresholds. Only look, decide and recommend of it count.",
        ),
    ] = None,
    instead_of: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="The package whose word --model takes the place of; may be repeated. Without "
            "it, the one of the same name.",
        ),
    ] = None,
    from_when: Annotated[str, typer.Option("--since", metavar="WHEN", help=HELP)] = "30d",
    config: ConfigOption = None,
) -> None:
    """Decide stored studies anew with another package (--model), under other settings (--settings), or both, and list
    every study whose priority would be another, up or down, with its images.

    Before a change of model or threshold, and after a while in shadow mode. Nothing is sent and nothing in the ledger
    changes; the node may run meanwhile. What other packages said stands, unless --settings alone is given: then all
    packages that those settings name look again. Studies whose images are no longer here are counted, not guessed.

    DIR gets `replay.html` (one page, with pictures of patients), `replay.csv` (a line for each image of each changed
    study) and `replay.json` (the counts); readable for you alone.
    """
    if model is None and settings_file is None:
        usage_error("say what to decide by: --model NAME, --settings FILE, or both")
    if instead_of and model is None:
        usage_error("--instead-of belongs to --model")
    settings = settings_of(config)
    out_dir = out_dir or Path(f"opentriage-replay-{datetime.now():%Y%m%d-%H%M%S}")
    configure("error", "replay")
    try:
        start = since(from_when)
    except ValueError as error:
        usage_error(f"--since: {error}")
    ledger = existing_ledger(settings)
    by = _settings(settings, settings_file)
    with tempfile.TemporaryDirectory(prefix="opentriage-replay-") as scratch:
        pictures = Store(Path(scratch), fsync=lambda descriptor: None)
        pictures.prepare()
        packages = _packages(by, model)
        names = None if model is None else frozenset(instead_of or [one.manifest.name for one in packages])
        try:
            analyser = Analyser(by, packages, pictures)
        except OpenTriageError as error:
            fail(str(error))
        try:
            tally, changed = _run(ledger, Replay(analyser, ledger.store, by.look.batch_max, names), start)
        finally:
            analyser.close()
        heading = (
            f"{model or 'the same packages'}, {settings_file or 'the same settings'}, since {start:%Y-%m-%d %H:%M}"
        )
        _write(out_dir, heading, tally, changed, (pictures, ledger.store))
    _say(tally, changed, out_dir)


def _settings(settings: Settings, file: Path | None) -> Settings:
    if file is None:
        return settings
    other = settings_of(file)
    return settings.model_copy(update={"look": other.look, "decide": other.decide, "recommend": other.recommend})


def _packages(settings: Settings, model: str | None) -> tuple[Package, ...]:
    try:
        if model is not None and (Path(model) / "manifest.json").is_file():
            return (load_package(Path(model).resolve()),)
        look = settings.look if model is None else settings.look.model_copy(update={"models": (model,)})
        found = installed(look)
    except OpenTriageError as error:
        fail(str(error))
    if found.refused:
        fail(found.refused[0].sentence)
    return found.packages


def _run(ledger: Ledger, again: Replay, start: datetime) -> tuple[Tally, list[Replayed]]:
    tally, changed = Tally(), []
    with progress() as bar:
        task = bar.add_task("deciding anew", total=ledger.count_reviewed(start))
        for study in ledger.reviewed(start):
            one = again.decide(study)
            tally.add(one)
            if one.changed:
                changed.append(one)
            bar.advance(task)
    changed.sort(key=lambda one: (not one.rises, one.study.first_received_at))
    return tally, changed


def _write(folder: Path, heading: str, tally: Tally, changed: list[Replayed], stores: tuple[Store, Store]) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _private(folder / "replay.html") as file:
            file.write(page(heading, tally, changed, stores))
        with _private(folder / "replay.csv") as file:
            writer = csv.writer(file)
            writer.writerow(COLUMNS)
            writer.writerows(row for one in changed for row in _rows(one))
        with _private(folder / "replay.json") as file:
            json.dump(_object(heading, tally, changed), file, indent=1)
    except OSError as error:
        fail(f"--out {folder}: cannot be written: {error.strerror}")


def _private(path: Path) -> TextIO:
    return open(path, "w", encoding="utf-8", newline="", opener=private)


def _rows(one: Replayed) -> Iterator[tuple[str, ...]]:
    for change in one.images:
        yield (
            one.study.study_instance_uid,
            one.study.first_received_at.isoformat(),
            word(one.before),
            word(one.after),
            change.image.sop_instance_uid,
            *(" ".join(_numbers(results)) for results in (change.before, change.after)),
        )


def _numbers(results: Any) -> Iterator[str]:
    for result in results:
        yield from (f"{finding.label}={finding.probability:.4f}" for finding in result.findings)


def _object(heading: str, tally: Tally, changed: list[Replayed]) -> dict[str, Any]:
    return {
        "schema_version": 1,
        "by": heading,
        "replayed": tally.replayed,
        "more_urgent": tally.raised,
        "less_urgent": tally.lowered,
        "not_replayed": dict(tally.not_replayed),
        "from_to": [
            {"before": before, "after": after, "studies": count}
            for (before, after), count in sorted(tally.pairs.items(), key=str)
        ],
        "changed": [
            {"study_instance_uid": one.study.study_instance_uid, "before": one.before, "after": one.after}
            for one in changed
        ],
    }


def _say(tally: Tally, changed: list[Replayed], folder: Path) -> None:
    for one in changed:
        out.print(f"{word(one.before)} -> {word(one.after)}\t{one.study.study_instance_uid}", markup=False)
    err.print(summary(tally), highlight=False)
    for why, count in sorted(tally.not_replayed.items()):
        err.print(f"  {count}: {why}", highlight=False, markup=False)
    err.print(f"wrote {folder / 'replay.html'}", markup=False, soft_wrap=True)
