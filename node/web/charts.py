"""Charts as SVG in the page: no script, colours from the style sheet, a shape beside every colour, and words for who
cannot see them. Lengths are in units of the view box, which the page scales."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from markupsafe import Markup, escape

WIDTH: Final = 720
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 12, 14, 30
_SHAPES: Final = ("triangle", "diamond", "ring", "dot")


@dataclass(frozen=True)
class Series:
    """name: as the legend says it. kind: its class in the style sheet. values: None where there is nothing."""

    name: str
    kind: str
    values: tuple[float | None, ...]


@dataclass(frozen=True)
class Interval:
    """One figure with its 95 % interval, None where there is none; all in 0..1."""

    name: str
    value: float
    low: float | None
    high: float | None
    words: str


def bars(title: str, description: str, labels: Sequence[str], values: Sequence[int], height: int = 200) -> Markup:
    """One bar for each value, which are counts."""
    top = _ceiling(max([*values, 4]))
    step = (WIDTH - _LEFT - _RIGHT) / max(len(values), 1)
    floor = height - _BOTTOM
    parts = _grid([top * share / 4 for share in range(5)], lambda v: _down(v / top, height), lambda v: f"{v:g}")
    for i, value in enumerate(values):
        tall = (floor - _TOP) * value / top
        if value:
            words = escape(f"{labels[i]}: {value}")
            parts.append(
                f'<rect class="bar" x="{_LEFT + i * step + step * 0.15:.1f}" y="{floor - tall:.1f}" '
                f'width="{step * 0.7:.1f}" height="{tall:.1f}" rx="1.5"><title>{words}</title></rect>'
            )
    return _svg(title, description, height, parts + _ticks(labels, step, height))


def pairs(
    title: str,
    description: str,
    labels: Sequence[str],
    now: Sequence[float],
    before: Sequence[float],
    height: int = 190,
) -> Markup:
    """Two bars for each label, which are shares of 0 to 1: before on the left, now on the right."""
    top = max(*now, *before, 0.2)
    step = (WIDTH - _LEFT - _RIGHT) / max(len(labels), 1)
    floor = height - _BOTTOM
    parts = _grid([top * part / 4 for part in range(5)], lambda v: _down(v / top, height), lambda v: f"{v:.0%}")
    for i, label in enumerate(labels):
        for values, place, kind, name in ((before, 0.1, "bar before", "before"), (now, 0.5, "bar", "now")):
            if tall := (floor - _TOP) * values[i] / top:
                parts.append(
                    f'<rect class="{kind}" x="{_LEFT + (i + place) * step:.1f}" y="{floor - tall:.1f}" '
                    f'width="{step * 0.38:.1f}" height="{tall:.1f}" rx="1.5"><title>'
                    f"{escape(f'{label}, {name}: {values[i]:.1%}')}</title></rect>"
                )
    return _svg(title, description, height, parts + _ticks(labels, step, height))


def lines(
    title: str,
    description: str,
    labels: Sequence[str],
    series: Sequence[Series],
    words: Callable[[float], str],
    height: int = 240,
) -> Markup:
    """Positive values on a logarithmic scale; each series has a shape of its own. words: of a value, for the scale."""
    known = [v for one in series for v in one.values if v is not None]
    low = math.floor(math.log10(max(min(known, default=0.1), 0.01)))
    high = max(math.ceil(math.log10(max([*known, 0.1]))), low + 1)

    def place(value: float) -> float:
        return _down((math.log10(max(value, 10.0**low)) - low) / (high - low), height)

    step = (WIDTH - _LEFT - _RIGHT) / max(len(labels), 1)
    parts = _grid([10.0**power for power in range(low, high + 1)], place, words)
    for shape, one in zip(_SHAPES, series, strict=False):
        dots = [(_LEFT + (i + 0.5) * step, place(v), v, i) for i, v in enumerate(one.values) if v is not None]
        joined = _joined(one.values, [(x, y) for x, y, _, _ in dots])
        parts.append(f'<g class="series {escape(one.kind)}">')
        parts += [f'<polyline points="{points}"/>' for points in joined]
        parts += [_mark(shape, x, y, f"{one.name}, {labels[i]}: {words(v)}") for x, y, v, i in dots]
        parts.append("</g>")
    return _svg(title, description, height, parts + _ticks(labels, step, height))


def legend(series: Sequence[Series]) -> list[tuple[str, Markup, str]]:
    """Kind, a small picture of its shape, and name, of each series that `lines` draws."""
    return [
        (one.kind, Markup('<svg class="key" viewBox="0 0 16 16" aria-hidden="true"><g class="series {}">{}</g></svg>')
         .format(one.kind, Markup(_mark(shape, 8, 8, ""))), one.name)  # noqa: S704  ours
        for shape, one in zip(_SHAPES, series, strict=False)
    ]  # fmt: skip


def intervals(title: str, description: str, figures: Sequence[Interval]) -> Markup:
    """A dot with its interval for each figure, from 0 to 1."""
    row, left, right = 30, 190, 170
    height = row * len(figures) + 34
    wide = WIDTH - left - right

    def across(value: float) -> float:
        return left + wide * min(max(value, 0.0), 1.0)

    parts = []
    for tick in (0.0, 0.25, 0.5, 0.75, 1.0):
        x = across(tick)
        parts.append(f'<line class="grid" x1="{x:.1f}" y1="6" x2="{x:.1f}" y2="{height - 24}"/>')
        parts.append(f'<text class="tick" x="{x:.1f}" y="{height - 8}" text-anchor="middle">{tick:g}</text>')
    for i, one in enumerate(figures):
        y = 20 + i * row
        parts.append(f'<text class="name" x="{left - 12}" y="{y + 4}" text-anchor="end">{escape(one.name)}</text>')
        if one.low is not None and one.high is not None:
            a, b = across(one.low), across(one.high)
            parts.append(f'<path class="whisker" d="M{a:.1f} {y - 5}v10M{a:.1f} {y}H{b:.1f}M{b:.1f} {y - 5}v10"/>')
        parts.append(f'<circle class="dot" cx="{across(one.value):.1f}" cy="{y}" r="4.5"/>')
        parts.append(f'<text class="said" x="{WIDTH - right + 14}" y="{y + 4}">{escape(one.words)}</text>')
    return _svg(title, description, height, parts)


def _svg(title: str, description: str, height: int, parts: Sequence[str]) -> Markup:
    inside = f"<title>{escape(title)}</title><desc>{escape(description)}</desc>" + "".join(parts)
    label = escape(f"{title}. {description}")
    return Markup(  # noqa: S704  every text in it was escaped above
        f'<svg class="chart" viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{label}">{inside}</svg>'
    )


def _down(share: float, height: int) -> float:
    """From the top of the picture to a value that is this share of the way up."""
    return height - _BOTTOM - (height - _BOTTOM - _TOP) * min(max(share, 0.0), 1.0)


def _grid(values: Sequence[float], place: Callable[[float], float], words: Callable[[float], str]) -> list[str]:
    parts = []
    for value in values:
        y = place(value)
        parts.append(f'<line class="grid" x1="{_LEFT}" y1="{y:.1f}" x2="{WIDTH - _RIGHT}" y2="{y:.1f}"/>')
        said = escape(words(value))
        parts.append(f'<text class="tick" x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{said}</text>')
    return parts


def _ticks(labels: Sequence[str], step: float, height: int) -> list[str]:
    """Every few labels, so that they do not run into each other."""
    every = max(1, math.ceil(56 / step))
    return [
        f'<text class="tick" x="{_LEFT + (i + 0.5) * step:.1f}" y="{height - 9}" text-anchor="middle">'
        f"{escape(labels[i])}</text>"
        for i in range(len(labels) - 1, -1, -every)
    ]


def _joined(values: Sequence[float | None], dots: Sequence[tuple[float, float]]) -> list[str]:
    """The points of each stretch without a gap."""
    stretches: list[list[str]] = [[]]
    left = iter(dots)
    for value in values:
        if value is None:
            stretches.append([])
        else:
            x, y = next(left)
            stretches[-1].append(f"{x:.1f},{y:.1f}")
    return [" ".join(points) for points in stretches if len(points) > 1]


def _mark(shape: str, x: float, y: float, words: str) -> str:
    title = f"<title>{escape(words)}</title>" if words else ""
    if shape == "triangle":
        return f'<path class="mark" d="M{x:.1f} {y - 5:.1f}l5 9h-10z">{title}</path>'
    if shape == "diamond":
        return f'<path class="mark" d="M{x:.1f} {y - 5:.1f}l5 5l-5 5l-5 -5z">{title}</path>'
    kind = "mark hollow" if shape == "ring" else "mark"
    return f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="4">{title}</circle>'


def _ceiling(value: int) -> int:
    """The next round number of which a quarter is whole."""
    power = int(10 ** max(0, math.floor(math.log10(max(value, 1)))))
    return next(
        step for step in (4, 8, 12, 20, 40, 60, 80, 100, *(power * k for k in (2, 4, 6, 8, 12))) if step >= value
    )
