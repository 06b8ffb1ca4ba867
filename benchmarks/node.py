"""Through the whole node on loopback: seconds from a study's last byte to its reports in the PACS.

Run: make bench-node. Synthetic samples, one association a study. "One at a time" waits for each study's last object
before it sends the next; "all at once" sends every study first. The stand-in PACS shares the machine.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

from node.demo import Demo, fresh_samples
from node.stand_in_pacs import Arrival

FIRST_REPORT = 4  # objects of a flagged study's first report: two reports, the picture and the key objects


def quantile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def said(name: str, values: list[float]) -> None:
    print(
        f"{name:<52} n {len(values):<4} p50 {statistics.median(values):.3f} s  p95 {quantile(values, 0.95):.3f} s"
        f"  max {max(values):.3f} s"
    )


class Bench:
    """A running demonstration node and its stand-in PACS."""

    def __init__(self, demo: Demo, folder: Path) -> None:
        self.demo = demo
        self.folder = folder
        self.count = 0

    def studies(self, rounds: int) -> list[Path]:
        """`rounds` times the six samples, each a fresh study."""
        made: list[Path] = []
        for _ in range(rounds):
            self.count += 1
            made += fresh_samples(self.folder / f"round-{self.count}")
        return made

    def delays(self) -> tuple[list[float], list[float]]:
        """Of flagged studies: seconds to the first and to the last object of the first report."""
        first, last = [], []
        for entry in self.demo.wait(lambda done, known: None):
            arrivals: list[Arrival] = self.demo.arrivals(entry.study_instance_uid)
            if len(arrivals) >= FIRST_REPORT:
                times = sorted((arrival.at - entry.last_received_at).total_seconds() for arrival in arrivals)
                times = times[:FIRST_REPORT]  # the final report comes when the study has been still for a while
                first.append(min(times))
                last.append(max(times))
        return first, last


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=10, help="times the six samples")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        demo = Demo(Path(folder) / "one")
        try:
            demo.start(own_files=False)
            bench = Bench(demo, Path(folder) / "sent")
            for path in bench.studies(options.rounds):
                demo.send([path], lambda one: None)
                demo.wait(lambda done, known: None)
            first, last = bench.delays()
            said("one at a time, HIGH: last byte to first object", first)
            said("one at a time, HIGH: last byte to last object", last)
        finally:
            demo.stop()
        demo = Demo(Path(folder) / "all")
        try:
            demo.start(own_files=False)
            bench = Bench(demo, Path(folder) / "sent-all")
            files = bench.studies(options.rounds)
            began = time.monotonic()
            demo.send(files, lambda one: None)
            demo.wait(lambda done, known: None)
            spent = time.monotonic() - began
            _, last = bench.delays()
            said("all at once, HIGH: last byte to last object", last)
            print(f"all at once: {len(files)} studies in {spent:.1f} s, the quiet time of the unflagged included")
        finally:
            demo.stop()


if __name__ == "__main__":
    main()
