"""What the wrong-patient proof before each send costs: a radiograph, and a study of 200 slices.

Run: PYTHONPATH=. .venv/bin/python -m benchmarks.guard. Real result objects over synthetic sources, their files in the
page cache. "First" reads and hashes every source; "again" is each further object of the report in the same attempt; an
object sent once more, in a later attempt, reads and hashes them anew.
"""

import argparse
import hashlib
import statistics
import tempfile
import time
import tracemalloc
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from config.settings import Settings
from ledger.proofs import Evidence
from ledger.reconcile import dataset_sha256
from ledger.records import ResultObject, StoredObject, StudyFindings, TriagePriority
from ledger.store import Store
from sr_writer.build import build_objects
from sr_writer.guard import Guard
from tests.support.dx import make_dx
from tests.support.findings import analysed, finding, keep, picture, study
from tests.support.mr import head, make_mr, measured_study, squares


def radiograph(store: Store) -> StudyFindings:
    """2500 x 3000 pixels, 12 bit: 15 MB."""
    ds = make_dx(np.random.default_rng(1).integers(0, 4096, (2500, 3000)).astype(np.uint16))
    result = replace(analysed(finding()), display_path=picture(store, make_dx()), source_rows=2500, source_columns=3000)
    return study((keep(ds, store), [result]))


def volume(store: Store, slices: int, marked: int) -> StudyFindings:
    """512 x 512 pixels a slice, 16 bit: half a megabyte each."""
    sides = [(40 if number < marked else 0) for number in range(slices)]
    marks = [None if mark is None else np.roll(np.pad(mark, ((0, 448), (0, 448))), 99) for mark in squares(*sides)]
    return measured_study(store, make_mr([head(False, 512)] * slices), marks)


def stored(made: ResultObject) -> StoredObject:
    digest = hashlib.sha256(made.content).hexdigest()
    return StoredObject(
        1,
        made.kind,
        made.sop_class_uid,
        made.sop_instance_uid,
        made.transfer_syntax_uid,
        digest,
        "",
        TriagePriority.HIGH,
        report_id=1,
    )


def measure(name: str, findings: StudyFindings, store: Store, rounds: int) -> None:
    instances = tuple(replace(one.instance, sha256="") for one in findings.looked_at)
    instances = tuple(replace(ref, sha256=dataset_sha256(store.path(ref.path))) for ref in instances)
    megabytes = sum(store.path(ref.path).stat().st_size for ref in instances) / 1e6
    made = [one for one in build_objects(findings, store, Settings(), "2.25.7", "generic-pacs") if not one.preference]
    own = frozenset(one.sop_instance_uid for one in made)
    evidence = Evidence(1, instances, tuple(ref.sha256 for ref in instances))
    objects = [(stored(one), one.content) for one in made]
    print(f"{name}: {len(instances)} sources, {megabytes:.0f} MB, {len(objects)} objects, n {rounds}")
    first: list[tuple[float, float]] = []
    again: list[tuple[float, float]] = []
    last: list[tuple[float, float]] = []
    for _ in range(rounds):
        guard = Guard(store, lambda report_id: evidence, lambda report_id: own)
        first.append(timed(guard, objects[:1]))
        again += [timed(guard, [one]) for one in objects[1:]]
        last += [timed(guard.anew(), [one]) for one in objects]
    said("first object: sources read and hashed", first)
    said("each further object", again)
    said("each object sent once more, alone", last)
    tracemalloc.start()
    guard = Guard(store, lambda report_id: evidence, lambda report_id: own)
    guard.prove(*objects[0])
    print(f"  most memory of Python's at once: {tracemalloc.get_traced_memory()[1] / 1e6:.1f} MB")
    tracemalloc.stop()


def timed(guard: Guard, objects: Sequence[tuple[StoredObject, bytes]]) -> tuple[float, float]:
    """Wall and processor milliseconds."""
    wall, processor = time.perf_counter(), time.process_time()
    for item, content in objects:
        guard.prove(item, content)
    return (time.perf_counter() - wall) * 1e3, (time.process_time() - processor) * 1e3


def said(name: str, values: Sequence[tuple[float, float]]) -> None:
    wall, processor = zip(*values, strict=True)
    print(
        f"  {name:<40} wall {statistics.median(wall):8.1f} ms ({min(wall):.1f} to {max(wall):.1f})"
        f"  processor {statistics.median(processor):8.1f} ms"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--slices", type=int, default=200)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder))
        store.prepare()
        measure("radiograph", radiograph(store), store, options.rounds)
        measure("slices", volume(store, options.slices, options.slices // 5), store, options.rounds)


if __name__ == "__main__":
    main()
