"""How often the watch over drift (node/watching/weeks.py) is wrong, and how soon it is right, at invented sites.

python -m benchmarks.drift --sites 40            false alarms in a year without drift, and what is found of a drift
python -m benchmarks.drift --ledger FOLDER --results 100000   what one look at a ledger of so many results costs

A site has one model with one finding, three senders and three reasons for which an image is not assessed (of 30 %, 5 %
and 1 % of the studies). "inpatients": two studies in five are of patients who stay six days on average, have one a day,
and look much the same in each. "restless": from week to week everything is worse or better for all (sd 0.15 in log
odds), and what is found follows the seasons (30 % more and less).
"""

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from config.drift import DriftSettings
from node.watching.drift import EDGES, Kind, Subject
from node.watching.weeks import Span, found_in

MODEL, LABEL = "chest/1.0.0", "opacity"
SENDERS = (0.6, 0.3, 0.1)
REASONS = {"view_not_read": 0.3, "age_unknown": 0.05, "unlike_training": 0.01}
LOG_ODDS = np.log(np.array(EDGES) / (1 - np.array(EDGES)))
DAYS, NOW = 365, datetime(2026, 11, 21, tzinfo=UTC)
Array = NDArray[Any]


@dataclass
class Site:
    """Studies in order of time, a row each: look (so many a day), patient, sender, bin, flagged, reason by reason."""

    at: Array
    who: Array
    sender: Array
    bins: Array
    flagged: Array
    reasons: Array


def site(
    rng: np.random.Generator, days: int, per_day: float, looks: int = 1, inpatients: bool = False,
    restless: bool = False, from_day: int = 10**9, shift: float = 0.0, refused: float | None = None,
) -> Site:  # fmt: skip
    """from_day: when log odds shift by `shift`, and age_unknown comes to be `refused` of the studies of sender 0."""
    day, who, stays = _studies(rng, days, per_day, 0.4 if inpatients else 0.0)
    mood = np.repeat(rng.normal(0, 0.15 if restless else 0.0, days // 7 + 1), 7)[:days]
    season = 1 + (0.3 * np.sin(2 * np.pi * np.arange(days) / 365) if restless else np.zeros(days))
    people = who.max() + 1
    ill = rng.random(people) < 0.15 * season[day[np.unique(who, return_index=True)[1]]]
    latent = np.where(ill, rng.normal(1.5, 1.5, people), rng.normal(-3, 1.2, people))
    drifted = day >= from_day
    logit = latent[who] + mood[day] + np.where(stays, rng.normal(0, 0.5, len(who)), 0) + shift * drifted
    sender = rng.choice(len(SENDERS), people, p=SENDERS)[who]
    at = day * looks + rng.integers(0, looks, len(day))
    luck = rng.random((people, len(REASONS)))[who]  # an inpatient is refused each day, or never
    limit = np.array(list(REASONS.values())) * np.exp(mood[day])[:, None]
    if refused is not None:
        limit[drifted & (sender == 0), 1] = refused
    order = np.argsort(at, kind="stable")
    bins = np.searchsorted(LOG_ODDS, logit)
    return Site(*(one[order] for one in (at, who, sender, bins, logit > 0, luck < limit)))


def _studies(rng: np.random.Generator, days: int, per_day: float, inpatients: float) -> tuple[Array, Array, Array]:
    """Of each study: its day, its patient, whether he is an inpatient."""
    weekday = np.where(np.arange(days) % 7 >= 5, 0.5, 1.2)
    once = np.repeat(np.arange(days), rng.poisson(per_day * (1 - inpatients) * weekday))
    came = np.repeat(np.arange(-30, days), rng.poisson(per_day * inpatients / 6, days + 30))
    stay = rng.geometric(1 / 6, len(came))
    day = np.concatenate([once, *(np.arange(a, a + n) for a, n in zip(came, stay, strict=True))]).astype(int)
    who = np.concatenate([np.arange(len(once)), len(once) + np.repeat(np.arange(len(came)), stay)]).astype(int)
    inside = (day >= 0) & (day < days)
    names, who = np.unique(who[inside], return_inverse=True)
    return day[inside], who, names[who] >= len(once)


def spans_at(one: Site, look: int, looks: int, settings: DriftSettings) -> tuple[Span, Span]:
    """What the node would count in the days before a look."""
    middle = look - settings.recent_days * looks
    first = middle - settings.reference_days * looks
    return (
        _counted(one, middle, look, Span(settings.recent_days)),
        _counted(one, first, middle, Span(settings.reference_days)),
    )


def _counted(one: Site, first: int, end: int, span: Span) -> Span:
    rows = slice(*np.searchsorted(one.at, (first, end)))
    chest = (MODEL, "")
    model = span.of(chest)
    model.bins[LABEL] = np.bincount(one.bins[rows], minlength=len(EDGES) + 1).tolist()
    model.events[Subject(Kind.FLAGGED, *chest, LABEL)] = int(one.flagged[rows].sum())
    for whose, mine in [(chest, slice(None)), *((("", f"CT{n}"), one.sender[rows] == n) for n in range(len(SENDERS)))]:
        group = span.of(whose)
        names, counts = np.unique(one.who[rows][mine], return_counts=True)
        group.studies = int(counts.sum())
        group.patients.update(dict(zip(map(str, names.tolist()), counts.tolist(), strict=True)))
        for i, code in enumerate(REASONS):
            group.events[Subject(Kind.REASON, *whose, code)] = int(one.reasons[rows][mine][:, i].sum())
    return span


def episodes(one: Site, days: int, looks: int, settings: DriftSettings) -> tuple[int, float, float]:
    """In a year of looks: alarms of any line that begin, days with any alarm, and lines compared at a look."""
    start = (settings.recent_days + settings.reference_days) * looks
    began, alarmed, compared, before = 0, 0, 0, frozenset[Subject]()
    for look in range(start, days * looks):
        found = found_in(*spans_at(one, look, looks, settings), settings, NOW)
        now = frozenset(line.subject for line in found.drifting)
        began, alarmed, compared, before = (
            began + len(now - before),
            alarmed + bool(now),
            compared + found.compared,
            now,
        )
    return began, alarmed / looks, compared / (days * looks - start)


def false_alarms(sites: int, looks: int, per_days: Sequence[int], settings: DriftSettings) -> Iterator[str]:
    yield "| studies a day | site | alarms a year, of all lines | days with one | lines compared |"
    yield "|--:|---|--:|--:|--:|"
    for per_day in per_days:
        for name, kind in {"independent": {}, "inpatients": {"inpatients": True},
                           "inpatients, restless": {"inpatients": True, "restless": True}}.items():  # fmt: skip
            rng = np.random.default_rng(20261121)
            span = settings.recent_days + settings.reference_days
            made = (site(rng, DAYS + span, per_day, looks, **kind) for _ in range(sites))
            began, days, compared = np.array([episodes(one, DAYS + span, looks, settings) for one in made]).mean(0)
            yield f"| {per_day} | {name} | {began:.2f} | {days:.1f} | {compared:.1f} |"


def power(sites: int, settings: DriftSettings) -> Iterator[str]:
    yield "| studies a day | what happens, with inpatients | an alarm on day 3 | 7 | 14 | 21 |"
    yield "|--:|---|--:|--:|--:|--:|"
    cases = {
        "log odds + 0.5": {"shift": 0.5}, "log odds + 1": {"shift": 1.0}, "log odds - 1": {"shift": -1.0},
        "log odds + 2": {"shift": 2.0}, "age_unknown of the largest sender 5 % -> 12 %": {"refused": 0.12},
        "5 % -> 30 %": {"refused": 0.3}, "5 % -> 100 %": {"refused": 1.0},
    }  # fmt: skip
    start = settings.recent_days + settings.reference_days
    for per_day in (15, 40, 150):
        for name, case in cases.items():
            rng = np.random.default_rng(20261121)
            hits = np.zeros(4)
            for _ in range(sites):
                one = site(rng, start + 21, per_day, 1, True, False, start, **case)
                for i, after in enumerate((3, 7, 14, 21)):
                    found = found_in(*spans_at(one, start + after, 1, settings), settings, NOW)
                    hits[i] += bool(found.drifting)
            yield f"| {per_day} | {name} | " + " | ".join(f"{share:.0%}" for share in hits / sites) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sites", type=int, default=40)
    parser.add_argument("--looks", type=int, default=1, help="a day")
    parser.add_argument("--studies", type=int, nargs="+", default=[15, 40, 150, 600], help="a day")
    parser.add_argument("--only", choices=["false-alarms", "power"])
    asked = parser.parse_args()
    began, settings = time.process_time(), DriftSettings()
    if asked.only != "power":
        for line in false_alarms(asked.sites, asked.looks, asked.studies, settings):
            print(line, flush=True)
    if asked.only != "false-alarms":
        for line in power(4 * asked.sites, settings):
            print(line, flush=True)
    print(
        f"{asked.sites} sites, {asked.looks} looks a day, {time.process_time() - began:.0f} CPU seconds",
        file=sys.stderr,
    )


if __name__ == "__main__":
    main()
