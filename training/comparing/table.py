"""The results as markdown and as a forest plot."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from training.comparing.variants import ComparePlan

Result = dict[str, Any]
COLOURS = ("#1b6ca8", "#b8336a", "#3c8d40", "#c77d0a", "#6b4fa0")


def domains_of(results: Sequence[Result]) -> list[str]:
    return list(dict.fromkeys(name for result in results for name in result["domains"]))


def markdown(plan: ComparePlan, results: Sequence[Result]) -> str:
    """A heading, the budget, one table per domain and one of costs."""
    parts = [f"## {plan.title}", _foreword(plan, results)]
    parts += [_domain(plan, results, domain) for domain in domains_of(results)]
    if plan.published:
        parts.append(_reached(plan, results))
    parts.append(_costs(results))
    notes = [f"- `{result['name']}`: {result['note']}" for result in results if result["note"]]
    if notes:
        parts.append("Variants:\n\n" + "\n".join(notes))
    return "\n\n".join(parts) + "\n"


def _foreword(plan: ComparePlan, results: Sequence[Result]) -> str:
    images = max((result["images"] for result in results), key=lambda counts: counts.get("train", 0))
    counted = ", ".join(f"{count} {name}" for name, count in images.items())
    return (
        f"{plan.budget}{_starts(results)} Labelled images by split, cut by patient: {counted}. AUC with a 95 %"
        " interval from a bootstrap over patients; sensitivity and specificity with Wilson intervals, at the cut with"
        " the greatest sum of both on the calibration split of the same domain; the test split chose nothing. These are"
        " torch networks in bfloat16, one run and one seed each: an interval holds the chance of the test patients, not"
        " that of another run."
    ).strip()


def _starts(results: Sequence[Result]) -> str:
    """What the variants began from, as their runs noted it; a result from before there was a note says nothing."""
    by_start: dict[str, list[str]] = {}
    for result in results:
        by_start.setdefault(result.get("began_from", ""), []).append(result["name"])
    by_start.pop("", None)
    told = [f"{', '.join(names)} from {began}" for began, names in by_start.items()]
    if len(by_start) == 1 and len(next(iter(by_start.values()))) == len(results):
        told = [f"all from {next(iter(by_start))}"]
    return f" Begun: {'; '.join(told)}." if told else ""


def _domain(plan: ComparePlan, results: Sequence[Result], domain: str) -> str:
    head = "| variant | AUC | sensitivity | specificity |\n|---|---|---|---|\n"
    rows = [_row(result["name"], result["domains"].get(domain)) for result in results]
    if domain == plan.published_domain:
        rows += [
            f"| *{name} (published)* | | {sensitivity:.3f} | {specificity:.3f} |"
            for name, (sensitivity, specificity) in plan.published.items()
        ]
    some = next(result["domains"][domain]["auc"] for result in results if domain in result["domains"])
    return f"**{domain}** (test: {some['n']} images of {some['patients']} patients)\n\n{head}" + "\n".join(rows)


def _reached(plan: ComparePlan, results: Sequence[Result]) -> str:
    """Which variants reach both published shares at their own cut; the point estimates are compared."""
    rows = {result["name"]: result["domains"].get(plan.published_domain, {}) for result in results}
    lines = []
    for name, (sensitivity, specificity) in plan.published.items():
        reached = [
            variant
            for variant, row in rows.items()
            if "sensitivity" in row
            and row["sensitivity"]["value"] >= sensitivity
            and row["specificity"]["value"] >= specificity
        ]
        lines.append(
            f"- {name} (published: sensitivity {sensitivity:.3f}, specificity {specificity:.3f}): both reached by"
            f" {', '.join(reached) or 'none'}"
        )
    return f"Against what was published ({plan.published_domain}), at this budget, by point estimate:\n\n" + "\n".join(
        lines
    )


def _row(name: str, row: Result | None) -> str:
    if row is None:
        return f"| {name} | | | |"
    shares = [_share(row[kind]) if kind in row else "" for kind in ("sensitivity", "specificity")]
    return f"| {name} | {_auc(row['auc'])} | {' | '.join(shares)} |"


def _auc(figure: Result) -> str:
    interval = figure["bootstrap95_by_patient"]
    text = f"{figure['value']:.3f}"
    return text if interval is None else f"{text} ({interval[0]:.3f} to {interval[1]:.3f})"


def _share(figure: Result) -> str:
    low, high = figure["wilson95"]
    return f"{figure['value']:.3f} ({low:.3f} to {high:.3f})"


def _costs(results: Sequence[Result]) -> str:
    rows = [
        f"| {result['name']} | {result['parameters'] / 1e6:.2f} | {result['cpu_ms_per_image']['training']:.1f} |"
        f" {result['cpu_ms_per_image']['inference']:.1f} |"
        for result in results
    ]
    head = (
        "| variant | million parameters | training, CPU ms an image | inference, CPU ms an image |\n|---|--:|--:|--:|\n"
    )
    return head + "\n".join(rows) + "\n\nCPU time of all cores together, torch in bfloat16, batches of 32, best of 3."


def forest(plan: ComparePlan, results: Sequence[Result], path: Path) -> None:
    """AUC and its interval: a line per variant, a panel per domain."""
    from matplotlib.figure import Figure  # slow to import, needed once

    domains = domains_of(results)
    figure = Figure(figsize=(2.0 + 2.6 * len(domains), 1.2 + 0.32 * len(results)), layout="constrained")
    panels = figure.subplots(1, len(domains), sharey=True, squeeze=False)[0]
    for panel, domain, colour in zip(panels, domains, COLOURS * len(domains), strict=False):
        for at, result in enumerate(results):
            row = result["domains"].get(domain)
            if row is not None:
                value = row["auc"]["value"]
                low, high = row["auc"]["bootstrap95_by_patient"] or (value, value)
                panel.plot([low, high], [at, at], color=colour, linewidth=1.5)
                panel.plot([value], [at], "o", color=colour, markersize=5)
        panel.set_title(domain, fontsize=9)
        panel.set_xlabel("AUC, 95 % by patient", fontsize=8)
        panel.tick_params(labelsize=8)
        panel.grid(axis="x", alpha=0.3)
    panels[0].set_yticks(range(len(results)), [result["name"] for result in results])
    panels[0].invert_yaxis()
    figure.suptitle(plan.title, fontsize=10)
    figure.savefig(path, dpi=90)
