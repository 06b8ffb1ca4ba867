"""Loads for a whole node: one study every so often, and as many as a bounded backlog lets through."""

import statistics
import threading
import time
from dataclasses import dataclass

from benchmarks.quiet import CORES, Others
from benchmarks.radiographs import Radiographs
from benchmarks.whole_node import Study, WholeNode

A_DAY_S = 86_400
GOAL_A_DAY = 1_000_000


def quantile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def said(name: str, values: list[float]) -> None:
    """One line: how many, p50, p95, p99, the greatest."""
    if not values:
        print(f"{name:<58} none")
        return
    middles = "  ".join(f"p{share * 100:.0f} {quantile(values, share):.3f} s" for share in (0.5, 0.95, 0.99))
    print(f"{name:<58} n {len(values):<5} {middles}  max {max(values):.3f} s", flush=True)


@dataclass(frozen=True)
class Spent:
    """Processor seconds by role, and others' share of the cores meanwhile."""

    by_role: dict[str, float]
    others: float

    def say(self, studies: int) -> None:
        total = sum(self.by_role.values())
        for role, seconds in self.by_role.items():
            print(f"  {role:<10}{seconds / studies * 1e3:8.1f} ms a study{seconds / total:8.0%}")
        print(f"  {'all':<10}{total / studies * 1e3:8.1f} ms a study; sender and sink, in one process, and all others"
              f" used {self.others:.0%} of the cores")  # fmt: skip
        print(
            f"  processor alone: {CORES} cores bear at most {CORES / (total / studies) * 3600:,.0f} studies an hour",
            flush=True,
        )


class Spending:
    """What the node's roles spend while the block runs."""

    def __init__(self, node: WholeNode) -> None:
        self._node = node
        self._others = Others()

    def __enter__(self) -> "Spending":
        self._before = self._node.cpu_s()
        self._others.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._others.__exit__()
        after = self._node.cpu_s()
        by_role = {role: after[role] - seconds for role, seconds in self._before.items()}
        self.spent = Spent(by_role, self._others.without(sum(by_role.values()) - self._others.own_s))


def moderate(node: WholeNode, images: Radiographs, every_s: float, for_s: float) -> None:
    """One study each `every_s`, whatever the node does."""
    node.studies.clear()
    count = max(1, round(for_s / every_s))
    with Spending(node) as spending:
        began = time.monotonic()
        for number in range(count):
            node.send(images.next())
            time.sleep(max(0.0, began + (number + 1) * every_s - time.monotonic()))
        node.rest()
    print(f"\nOne study every {every_s:g} s, {count} studies, each on an association of its own")
    _said_of(list(node.studies.values()))
    spending.spent.say(count)


def _said_of(studies: list[Study]) -> None:
    raised = [study for study in studies if study.raised]
    said("raised: last byte to the first SR in the PACS", [study.to_report() for study in raised])
    said("raised: last byte to the last object of that report", [study.to_last_object() for study in raised])
    others = [study for study in studies if study.arrived and not study.raised]
    said("others: last byte to their report", [study.to_report() for study in others])
    if missing := sum(1 for study in studies if not study.arrived):
        print(f"of {missing} studies nothing came")


def sustained(node: WholeNode, images: Radiographs, for_s: float, backlog: int, senders: int = 2) -> None:
    """As many as can be: a sender waits while of `backlog` studies nothing has come."""
    node.studies.clear()
    stop = threading.Event()
    depth: list[int] = []

    def feed() -> None:
        while not stop.is_set():
            if node.waiting() >= backlog:
                time.sleep(0.02)
            else:
                node.send(images.next())

    threads = [threading.Thread(target=feed) for _ in range(senders)]
    with Spending(node) as spending:
        began = time.monotonic()
        for thread in threads:
            thread.start()
        while time.monotonic() < began + for_s:
            time.sleep(1.0)
            depth.append(node.waiting())
        stop.set()
        for thread in threads:
            thread.join()
        fed = time.monotonic() - began
        node.rest()
        whole = time.monotonic() - began
    studies = list(node.studies.values())
    print(f"\nAs many as can be for {for_s:g} s, at most {backlog} of which nothing has come, {senders} senders")
    _rates(studies, began, fed, whole)
    half = len(depth) // 2
    halves = [statistics.median(some) for some in (depth[:half], depth[half:])]
    print(f"backlog: median {halves[0]:.0f} in the first half, {halves[1]:.0f} in the second, most {max(depth)}")
    _said_of(studies)
    spending.spent.say(len(studies))


def _rates(studies: list[Study], began: float, fed: float, whole: float) -> None:
    half = began + fed / 2
    steady = sum(1 for study in studies if study.arrived and half <= study.arrived[0][0] < began + fed) / (fed / 2)
    rate, a_day = len(studies) / whole, steady * A_DAY_S
    print(f"{len(studies)} studies delivered whole in {whole:.1f} s, the last ones' wait included: {rate:.2f} a second")
    print(
        f"steady (second half of the feeding): {steady:.2f} a second, {steady * 3600:,.0f} an hour, {a_day:,.0f} a day"
    )
    print(f"goal {GOAL_A_DAY:,} a day: {a_day / GOAL_A_DAY:.2f} x", flush=True)
