"""`opentriage alert-budget`."""

import csv
import math
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray
from rich.table import Table

from ledger.ledger import Ledger
from node.asking import existing_ledger
from node.console import ConfigOption, err, fail, out, settings_of, usage_error
from node.looking.alert_budget import (
    FEW_DAYS,
    FEW_STUDIES,
    Scores,
    Spread,
    flagged_by,
    flagged_by_any,
    proposed,
    scores_of,
    smallest_step,
    spread_of,
    steps_of,
)
from node.since import HELP, since
from validation.statistics import proportion

app = typer.Typer(add_completion=False)
RUNGS = tuple(n / 20 for n in range(1, 20))
KEYS = ("study_instance_uid", "sop_instance_uid")
Flags = NDArray[np.bool_]  # for each study
Truth = dict[str, dict[str, bool]]  # study -> label -> whether it is there


@app.command("alert-budget")
def alert_budget(
    per_day: Annotated[float, typer.Option("--per-day", min=0, help="Flags a day that readers can take.")],
    days_within: Annotated[
        float, typer.Option("--days-within", min=0.01, max=1, help="On which share of days the budget is to hold.")
    ] = 0.95,
    from_when: Annotated[str, typer.Option("--since", metavar="WHEN", help=HELP)] = "90d",
    labels: Annotated[
        Path | None,
        typer.Option(
            metavar="CSV",
            exists=True,
            dir_okay=False,
            help="What is known of stored studies: a column study_instance_uid or sop_instance_uid, and one for each "
            "finding: 1 there, 0 not, empty unknown. Without it, what readers said on the page.",
        ),
    ] = None,
    out_file: Annotated[Path | None, typer.Option("--out", metavar="CSV", help="The whole table as a file.")] = None,
    config: ConfigOption = None,
) -> None:
    """Which thresholds keep the flags of a day within a budget, by the scores of stored studies, and what that would
    have missed.

    A flag is a study that is HIGH or MEDIUM, flags for doubt included. All thresholds are raised together, by the same
    step in log odds, until the budget holds; beside it stands what each threshold of each finding would give by itself.
    Where the truth is known, sensitivity and positive predictive value are given with 95 % Wilson intervals. Readers
    mostly judge what was flagged: a sensitivity from their words alone is too good.
    """
    settings = settings_of(config)
    try:
        start = since(from_when)
    except ValueError as error:
        usage_error(f"--since: {error}")
    ledger = existing_ledger(settings)
    scores = scores_of(ledger.reviewed(start), settings.decide)
    if not scores.points:
        fail("no stored study since then has a score of a model that may raise a priority")
    truth = _table_truth(labels, scores) if labels else _readers_truth(ledger, scores)
    step = smallest_step(scores, per_day, days_within)
    rows = list(_rows(scores, truth, step, per_day))
    out.print(_shown(rows))
    _say(scores, step, per_day, days_within)
    if out_file is not None:
        _write(out_file, rows)


def _rows(scores: Scores, truth: Truth, step: float, budget: float) -> Iterator[dict[str, Any]]:
    in_force, proposals = steps_of(scores) >= 0.0, proposed(scores, step)
    kept = in_force if step == 0.0 else flagged_by_any(scores, proposals)
    for name, flagged in (("in force", in_force), ("budget", kept)):
        yield {"finding": "all", "what": name, "threshold": "", **_numbers(spread_of(scores, flagged, budget))}
    for label in scores.labels:
        flags_now = steps_of(scores, label) >= 0.0
        for what, threshold, flagged in _thresholds(scores, label, None if step == 0.0 else proposals[label]):
            yield {
                "finding": label,
                "what": what,
                "threshold": threshold,
                **_numbers(spread_of(scores, flagged, budget)),
                "lost": int((flags_now & ~flagged).sum()),
                **_against_truth(scores, truth, label, flagged),
            }


def _thresholds(scores: Scores, label: str, proposal: float | None) -> Iterator[tuple[str, float | str, Flags]]:
    """What stands in a line, its threshold, and which studies are flagged: the rungs, what is in force and what keeps
    the budget (None: what is in force), lowest first. Of several in force, for several ages, all are named."""
    points = scores.points[label]
    lines: dict[float, tuple[str, float | str, Flags]] = {
        rung: ("", rung, flagged_by(scores, label, rung)) for rung in RUNGS
    }
    if proposal is not None:
        lines[proposal] = ("budget", round(proposal, 4), flagged_by(scores, label, proposal))
    said = round(points[0], 4) if len(points) == 1 else ", ".join(f"{point:.4g}" for point in points)
    word = "in force, budget" if proposal is None else "in force"
    lines[points[-1]] = (word, said, steps_of(scores, label) >= 0.0)
    yield from (lines[at] for at in sorted(lines))


def _numbers(spread: Spread) -> dict[str, Any]:
    return {
        "days": spread.days,
        "flagged": spread.studies,
        "mean": round(spread.mean, 2),
        "sd": round(spread.sd, 2),
        "median": spread.median,
        "p95": spread.p95,
        "most": spread.most,
        "within": round(spread.within, 3),
    }


def _against_truth(scores: Scores, truth: Truth, label: str, flagged: Any) -> dict[str, Any]:
    known = [
        (truth[one.study_uid][label], bool(is_flagged))
        for one, is_flagged in zip(scores.studies, flagged, strict=True)
        if label in truth.get(one.study_uid, {})
    ]
    hits = sum(there and is_flagged for there, is_flagged in known)
    sensitivity = proportion(hits, sum(there for there, _ in known))
    predictive = proportion(hits, sum(is_flagged for _, is_flagged in known))
    return {"sensitivity": _share(sensitivity), "ppv": _share(predictive)}


def _share(share: Mapping[str, Any]) -> str:
    if share["value"] is None:
        return ""
    low, high = share["wilson95"]
    return f"{share['value']:.3f} ({low:.3f} to {high:.3f}; {share['hits']} of {share['n']})"


def _readers_truth(ledger: Ledger, scores: Scores) -> Truth:
    """Of a study: the finding is in one of its images, or in none that a reader judged."""
    study_of = {uid: one.study_uid for one in scores.studies for uid in one.sop_instance_uids}
    found: Truth = {}
    for image in ledger.labelled_images():
        for label, there in image.truth.items():
            study = study_of.get(image.sop_instance_uid)
            if study is not None and there is not None:
                found.setdefault(study, {})[label] = there or found.get(study, {}).get(label, False)
    return found


def _table_truth(path: Path, scores: Scores) -> Truth:
    study_of = {uid: one.study_uid for one in scores.studies for uid in one.sop_instance_uids}
    found: Truth = {}
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        key = next((name for name in KEYS if name in (reader.fieldnames or ())), None)
        columns = [label for label in scores.labels if label in (reader.fieldnames or ())]
        if key is None or not columns:
            usage_error(f"--labels: wants a column {' or '.join(KEYS)}, and one of: {', '.join(scores.labels)}")
        for number, row in enumerate(reader, start=2):
            study = row[key] if key == KEYS[0] else study_of.get(row[key], "")
            for label in columns:
                if (value := (row[label] or "").strip()) not in ("0", "1", ""):
                    usage_error(f"--labels: line {number}, {label}: neither 0, 1 nor empty")
                if value:
                    there = value == "1"
                    found.setdefault(study, {})[label] = there or found.get(study, {}).get(label, False)
    return found


def _shown(rows: list[dict[str, Any]]) -> Table:
    """What matters of it: each finding at its thresholds in force and for the budget, and each second rung."""
    table = Table(box=None, pad_edge=False)
    headings = ("finding", "threshold", "", "flags a day", "p95", "most", "days within", "no more flagged")
    for heading in (*headings, "sensitivity", "PPV"):
        left = heading in ("finding", "")
        table.add_column(heading, justify="left" if left else "right", no_wrap=left or heading == "threshold")
    for row in rows:
        if row["what"] or row["threshold"] in RUNGS[1::2]:
            mean = f"{row['mean']:g} ± {row['sd']:g}"
            cells = [
                row["finding"],
                row["threshold"],
                row["what"],
                mean,
                row["p95"],
                row["most"],
                f"{row['within']:.0%}",
            ]
            cells += [row.get("lost", ""), row.get("sensitivity", ""), row.get("ppv", "")]
            table.add_row(*map(str, cells), style="bold" if row["what"] else None)
    return table


def _say(scores: Scores, step: float, budget: float, within: float) -> None:
    if math.isinf(step):
        err.print(
            f"No threshold keeps {budget:g} flags a day: that many studies are flagged for doubt alone, whatever the "
            "threshold. See [decide] doubt_sd, doubt_margin and doubt_priority.",
            markup=False,
            style="bold yellow",
        )
    elif step == 0.0:
        err.print(f"The thresholds in force keep {budget:g} flags a day on {within:.0%} of days or more.")
    else:
        err.print("To keep the budget, in the settings:")
        err.print("  [decide.thresholds]", markup=False)
        for label, threshold in proposed(scores, step).items():
            err.print(f"  {label} = {threshold:g}", markup=False)
        err.print("Look first at what would change: opentriage replay --settings FILE --out DIR")
    flagged = int((steps_of(scores) >= 0.0).sum())
    if len(scores.days) < FEW_DAYS or flagged < FEW_STUDIES:
        err.print(
            f"Little to go by: days looked at: {len(scores.days)}; flagged studies: {flagged}. Weekdays and seasons "
            "differ: take this for a first idea.",
            style="yellow",
        )


def _write(path: Path, rows: list[dict[str, Any]]) -> None:
    names = list(dict.fromkeys(name for row in rows for name in row))
    try:
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, names, restval="")
            writer.writeheader()
            writer.writerows(rows)
    except OSError as error:
        fail(f"--out {path}: cannot be written: {error.strerror}")
    sys.stderr.write(f"wrote {path}\n")
