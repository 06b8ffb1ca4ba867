"""Through the whole node on loopback: seconds from a study's last byte to its reports in the PACS, and how many.

Run: make bench-node. Synthetic samples, one association a study, a share of them raised (--raised). "One at a time"
waits for each study's last object before the next is sent; then one study every second; then as many as a bounded
backlog lets through, with the processor time of each role. Sender and sink share the machine. The clock starts when the
last byte of a data set has been handed to the system, before the node syncs and commits; it ends when the sink has read
the object. An unraised study is reported once it counts as complete: its time holds that wait (--complete-after).
"""

import argparse
import signal
import sys
import tempfile
from pathlib import Path

from benchmarks.load import moderate, said, sustained
from benchmarks.quiet import wait_until_quiet
from benchmarks.radiographs import Radiographs
from benchmarks.whole_node import WholeNode


def one_at_a_time(node: WholeNode, images: Radiographs, count: int) -> None:
    """Each study after the one before it has been delivered whole, what follows its completion included."""
    for _ in range(count):
        node.send(images.next())
        node.rest()
    print(f"One at a time, {count} studies")
    raised = [study for study in node.studies.values() if study.raised]
    said("raised: last byte to the first SR in the PACS", [study.to_report() for study in raised])
    said("raised: last byte to the last object of that report", [study.to_last_object() for study in raised])
    others = [study for study in node.studies.values() if study.arrived and not study.raised]
    said("others: last byte to their report", [study.to_report() for study in others])


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10, help="times the six samples, one at a time; 0: not")
    parser.add_argument("--moderate", type=float, default=120.0, help="seconds of one study every --every; 0: not")
    parser.add_argument("--every", type=float, default=1.0)
    parser.add_argument("--sustained", type=float, default=120.0, help="seconds of as many as can be; 0: not")
    parser.add_argument("--backlog", type=int, default=100, help="studies of which nothing has come")
    parser.add_argument("--raised", type=float, default=0.5, help="share of studies that are raised")
    parser.add_argument("--large", action="store_true", help="10 MB each (2560 x 2048) instead of 0.7 MB (640 x 512)")
    parser.add_argument("--complete-after", type=float, default=2.0, help="study.complete_after_s")
    parser.add_argument("--patience", type=float, default=60.0, help="seconds to wait for a quiet machine")
    return parser.parse_args()


def main() -> None:
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(143))  # what was started is stopped
    chosen = options()
    with tempfile.TemporaryDirectory(prefix="bench-node-") as name:
        folder = Path(name)
        images = Radiographs(folder / "samples", chosen.large, chosen.raised)
        with WholeNode(folder / "node", chosen.complete_after) as node:
            node.send(images.next())
            node.rest()
            node.studies.clear()
            quiet = "a quiet" if wait_until_quiet(chosen.patience) else "not a quiet"
            what = f"{images.size_bytes / 1e6:.2f} MB each in the mean, {chosen.raised:.0%} raised"
            print(f"{what}, study.complete_after_s {chosen.complete_after:g}; {quiet} machine")
            if chosen.rounds:
                one_at_a_time(node, images, chosen.rounds * 6)
            if chosen.moderate:
                moderate(node, images, chosen.every, chosen.moderate)
            if chosen.sustained:
                sustained(node, images, chosen.sustained, chosen.backlog)


if __name__ == "__main__":
    main()
