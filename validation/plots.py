"""Plots of one label as PNG, for a light page and for a dark one. Needs matplotlib (extra `validate`)."""

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from validation.doubt import NAMES, risk_at_coverage
from validation.figures import Evidence
from validation.roc import curve

DPI = 160
LINES = {  # colours that the colour-blind tell apart (Okabe and Ito), and a dash for print without colour
    "sd": ("#0072B2", "-"),
    "mutual_information": ("#009E73", "--"),
    "max_probability": ("#D55E00", "-."),
    "distance": ("#E69F00", (0, (6, 2))),
}


class PlotsNotInstalled(RuntimeError):
    """matplotlib is absent; the text says how to get it."""


@dataclass(frozen=True)
class Theme:
    back: str
    ink: str
    dim: str
    grid: str
    accent: str
    second: str


LIGHT = Theme("#ffffff", "#16202a", "#5b6875", "#dfe5ea", "#1d5fa8", "#b3480f")
DARK = Theme("#161d24", "#e8edf2", "#a5b1bc", "#323d47", "#7db8f5", "#ffa86b")


def check_installed() -> None:
    """Raises PlotsNotInstalled."""
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        raise PlotsNotInstalled(
            "plots and the page need matplotlib, which is not installed: .venv/bin/pip install --require-hashes"
            " -r requirements/openvino.txt"
        ) from error


def plots(evidence: Evidence, figures: Mapping[str, Any], theme: Theme) -> dict[str, bytes]:
    """By name, a PNG each; those that these images do not allow are absent."""
    looked = evidence.looked_at
    both_kinds = 0.0 < looked.truth.mean() < 1.0 if len(looked.truth) else False
    drawn: dict[str, bytes] = {}
    if both_kinds:
        drawn["roc"] = _drawn(theme, lambda ax: _roc(ax, looked, figures, theme))
        drawn["precision-recall"] = _drawn(theme, lambda ax: _precision_recall(ax, looked, figures, theme))
    if len(looked.truth):
        drawn["calibration"] = _drawn(theme, lambda ax: _calibration(ax, looked, figures, theme))
    if figures.get("doubt", {}).get("errors"):
        drawn["risk-coverage"] = _drawn(theme, lambda ax: _risk(ax, looked, figures, theme), (9.2, 4.4))
    rows = [(trait, g) for trait, found in figures["groups"]["traits"].items() for g in found["groups"]]
    if rows:
        height = 1.1 + 0.3 * (len(rows) + len(figures["groups"]["traits"]))
        drawn["groups"] = _drawn(theme, lambda ax: _groups(ax, rows, figures, theme), (9.2, height))
    return drawn


def _drawn(theme: Theme, draw: Callable[[Any], None], size: tuple[float, float] = (4.6, 4.4)) -> bytes:
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    style: Any = {
        "font.family": "DejaVu Sans", "font.size": 9.5, "axes.facecolor": theme.back, "figure.facecolor": theme.back,
        "text.color": theme.ink, "axes.labelcolor": theme.ink, "axes.edgecolor": theme.dim, "xtick.color": theme.dim,
        "ytick.color": theme.dim, "grid.color": theme.grid, "axes.spines.top": False, "axes.spines.right": False,
        "legend.frameon": False, "legend.labelcolor": theme.ink, "axes.axisbelow": True,
    }  # fmt: skip
    with rc_context(style):
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.add_subplot()
        axes.grid(linewidth=0.8)
        draw(axes)
        buffer = io.BytesIO()
        figure.savefig(buffer, dpi=DPI, format="png", metadata={"Software": None})
    return buffer.getvalue()


def _roc(ax: Any, looked: Evidence, figures: Mapping[str, Any], theme: Theme) -> None:
    points = curve(looked.truth, looked.judged.probability)
    n_ill = float((looked.truth > 0.5).sum())
    n_well = len(looked.truth) - n_ill
    area = figures["auc_of_those_looked_at"]
    ax.plot([0, 1], [0, 1], color=theme.dim, linewidth=1, linestyle=(0, (2, 3)))
    ax.plot(
        np.r_[0, points["false_alarms"] / n_well],
        np.r_[0, points["hits"] / n_ill],
        color=theme.accent,
        linewidth=2.2,
        label=f"AUC {area['value']:.3f}",
    )
    cells = figures["confusion"]
    here = (cells["present_without"] / n_well, cells["present_with"] / n_ill)
    ax.plot(*here, "o", color=theme.second, markersize=8, markeredgecolor=theme.back, label="operating point")
    ax.axvline(0.1, color=theme.dim, linewidth=1, linestyle="--", label="90 % specificity")
    ax.set(xlabel="1 − specificity", ylabel="Sensitivity", title="ROC, images looked at")
    _unit_square(ax)
    ax.legend(loc="lower right")


def _precision_recall(ax: Any, looked: Evidence, figures: Mapping[str, Any], theme: Theme) -> None:
    points = curve(looked.truth, looked.judged.probability)
    share = float(looked.truth.mean())
    precision = points["hits"] / (points["hits"] + points["false_alarms"])
    ax.axhline(share, color=theme.dim, linewidth=1, linestyle=(0, (2, 3)), label=f"share with the finding {share:.2f}")
    recall = points["hits"] / points["hits"][-1]
    ax.step(
        np.r_[0, recall],
        np.r_[precision[:1], precision],
        where="post",
        color=theme.accent,
        linewidth=2.2,
        label=f"average precision {figures['average_precision']:.3f}",
    )
    now = figures["of_those_looked_at"]
    if now["positive_predictive_value"]["value"] is not None:
        here = (now["sensitivity"]["value"], now["positive_predictive_value"]["value"])
        ax.plot(*here, "o", color=theme.second, markersize=8, markeredgecolor=theme.back, label="operating point")
    ax.set(xlabel="Recall (sensitivity)", ylabel="Precision (positive predictive value)", title="Precision and recall")
    _unit_square(ax)
    ax.legend(loc="lower left")


def _calibration(ax: Any, looked: Evidence, figures: Mapping[str, Any], theme: Theme) -> None:
    rows = figures["reliability"]
    stated = np.array([row["stated"] for row in rows])
    observed = np.array([row["observed"]["value"] for row in rows])
    low, high = np.array([row["observed"]["wilson95"] for row in rows]).T
    heights, edges = np.histogram(looked.judged.probability, 30, (0.0, 1.0))
    ax.bar(
        edges[:-1], 0.16 * heights / heights.max(), np.diff(edges), align="edge", color=theme.dim, alpha=0.3, zorder=0
    )
    ax.plot([0, 1], [0, 1], color=theme.dim, linewidth=1, linestyle=(0, (2, 3)), label="as stated")
    spans = np.clip(np.stack([observed - low, high - observed]), 0.0, None)
    ax.errorbar(stated, observed, spans, fmt="none", ecolor=theme.accent, elinewidth=1.2, alpha=0.45)
    sizes = np.clip(9.0 * np.sqrt([row["observed"]["n"] for row in rows]), 14, 150)
    ax.scatter(
        stated,
        observed,
        sizes,
        color=theme.accent,
        edgecolor=theme.back,
        zorder=3,
        clip_on=False,
        label="observed, 95 %",
    )
    error = figures["after_calibration"]["ece_15_bins"]
    ax.set(xlabel="Stated probability", ylabel="Share with the finding", title=f"Calibration, ECE {error:.3f}")
    _unit_square(ax)
    ax.legend(loc="lower right")


def _risk(ax: Any, looked: Evidence, figures: Mapping[str, Any], theme: Theme) -> None:
    doubt, n = figures["doubt"], len(looked.truth)
    coverage = np.arange(1, n + 1) / n
    ax.axhline(doubt["risk_at_full_coverage"], color=theme.dim, linewidth=1, linestyle=(0, (2, 3)), label="at random")
    for name, values in looked.judged.doubts().items():
        won = name == doubt["winner"]
        colour, dash = LINES[name]
        ax.plot(
            coverage,
            risk_at_coverage(looked.wrong, values),
            color=colour,
            linestyle=dash,
            linewidth=2.8 if won else 1.5,
            zorder=4 if won else 3,
            label=f"{NAMES[name]}, AURC {doubt['orderings'][name]['aurc']:.4f}{' (least)' if won else ''}",
        )
    perfect = risk_at_coverage(looked.wrong, looked.wrong.astype(np.float64))
    ax.plot(coverage, perfect, color=theme.dim, linewidth=1, label="a perfect order")
    ax.set(xlabel="Coverage: share of images answered", ylabel="Share of errors among them", title="Risk and coverage")
    ax.set_xlim(0, 1.005)
    ax.set_ylim(0, max(1.6 * doubt["risk_at_full_coverage"], 0.01))
    ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))


def _groups(ax: Any, rows: list[tuple[str, Any]], figures: Mapping[str, Any], theme: Theme) -> None:
    """Dots with intervals, one line a group, one heading a trait."""
    y, last, ticks, names = 0.0, "", [], []
    for trait, group in rows:
        if trait != last:
            y, last = y - 0.9, trait
            ax.text(0.0, y, trait, weight="bold", va="center", color=theme.ink, transform=ax.get_yaxis_transform())
        y -= 1.0
        ticks.append(y)
        marked = "   (few images)" if group["small"] else ""
        names.append(f"{group['group']}, n = {group['images']}{marked}")
        for name, colour, shift, mark in (
            ("sensitivity", theme.accent, 0.16, "o"),
            ("specificity", theme.second, -0.16, "s"),
        ):
            if group[name]["value"] is None:
                continue
            faint = 0.45 if group["small"] else 1.0
            ax.plot(group[name]["wilson95"], [y + shift] * 2, color=colour, linewidth=1.6, alpha=faint)
            ax.plot(group[name]["value"], y + shift, mark, color=colour, markersize=5, alpha=faint)
    for name, colour in (("sensitivity", theme.accent), ("specificity", theme.second)):
        if figures[name]["value"] is not None:
            ax.axvline(figures[name]["value"], color=colour, linewidth=1, linestyle="--", label=f"{name}, all images")
    ax.set_yticks(ticks, names)
    ax.set_xlim(-0.01, 1.01)
    ax.set_ylim(y - 0.7, 0.0)
    ax.grid(visible=False, axis="y")
    ax.set_xlabel("Share, with its 95 % interval")
    ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)


def _unit_square(ax: Any) -> None:
    ax.set_xlim(-0.01, 1.01)
    ax.set_ylim(-0.01, 1.01)
    ax.set_aspect("equal")
