"""What one look for drift costs at a ledger of many results, and whether anybody who writes waits for it.

python -m benchmarks.drift_cost FOLDER --results 100000

Results are as the shipped chest model writes them (1.8 KB with a 7 x 7 map), two of three images of a study of their
own, over 35 days; one study in ten is of an image that was refused. A second process writes one row at a time, as
fast as it can, first alone and then beside the look: the slowest of its commits says whether it had to wait.
"""

import argparse
import multiprocessing
import resource
import statistics
import time
from dataclasses import replace
from datetime import UTC, datetime
from multiprocessing.synchronize import Event
from pathlib import Path
from threading import Event as Stop

import numpy as np

from config import Settings
from ledger.codec import dump_result
from ledger.database import transaction
from ledger.ledger import Ledger
from ledger.records import ActivationMap, ImageResult, TriagePriority
from ledger.tables import events, instances, results, studies
from node.chores.drift import Watch
from node.wiring import open_ledger
from tests.support.records import judged, received, refused

DAYS, CHUNK = 35, 5_000


def fill(ledger: Ledger, count: int) -> None:
    rng = np.random.default_rng(20261121)
    now, uids = time.time(), iter(range(count))
    cells = tuple(tuple(float(one) for one in row) for row in rng.normal(0, 3, (7, 7)))
    while chunk := [number for number, _ in zip(uids, range(CHUNK), strict=False)]:
        made = [_rows(number, now - rng.random() * DAYS * 86400, rng, cells) for number in chunk]
        with transaction(ledger._engine, write=True) as connection:
            connection.execute(studies.insert(), [one[0] for one in made if one[0]])
            connection.execute(instances.insert(), [one[1] for one in made])
            connection.execute(results.insert(), [one[2] for one in made])


def _rows(
    number: int, at: float, rng: np.random.Generator, cells: tuple[tuple[float, ...], ...]
) -> tuple[dict[str, object], dict[str, object], dict[str, object]]:
    """Every third image is the second one of the study before."""
    owner = number - (number % 3 == 2)
    uid = f"1.2.826.0.1.3680043.8.498.{owner}"
    study = {
        "study_uid": uid, "is_prior": False, "first_received_at": at, "last_received_at": at,
        "patient_digest": f"{owner:064}",
    } if owner == number else {}  # fmt: skip
    one = received(uid, sop_instance_uid=f"{uid}.{number}", calling_ae_title=f"CT{owner % 5}")
    row = {name: getattr(one, name) for name in ("sop_class_uid", "sop_instance_uid", "transfer_syntax_uid")}
    row |= {name: getattr(one, name) for name in ("modality", "sha256", "size_bytes", "path", "disposition")}
    row |= {name: getattr(one, name) for name in ("calling_ae_title", "peer_address", "association_id")}
    row |= {"id": number + 1, "study_uid": uid, "series_uid": f"{uid}.1", "version": 1, "message_priority": 0}
    result = refused() if owner % 10 == 0 else _answer(float(1 / (1 + np.exp(-rng.normal(-2, 2)))), cells)
    body = {"instance_id": number + 1, "study_uid": uid, "status": result.status, "priority": result.priority}
    return study, row | {"received_at": at}, body | {"body": dump_result(result), "created_at": at}


def _answer(probability: float, cells: tuple[tuple[float, ...], ...]) -> ImageResult:
    result = judged(TriagePriority.LOW, probability)
    activation = ActivationMap(cells, (0.0, 0.0, 2000.0, 2000.0))
    return replace(result, findings=(replace(result.findings[0], activation=activation),))


def write(settings: Settings, begin: Event, stop: Event, answer: "multiprocessing.Queue[list[float]]") -> None:
    """Seconds that each of many small commits took."""
    ledger, took = open_ledger(settings), []
    begin.set()
    while not stop.is_set():
        before = time.perf_counter()
        with transaction(ledger._engine, write=True) as connection:
            row = {"study_uid": "1.2", "at": time.time(), "name": "measured", "text": "x"}
            connection.execute(events.insert().values(row))
        took.append(time.perf_counter() - before)
    answer.put(took)


def beside(settings: Settings, what: object, seconds: float) -> list[float]:
    begin, stop = multiprocessing.Event(), multiprocessing.Event()
    answer: multiprocessing.Queue[list[float]] = multiprocessing.Queue()
    writer = multiprocessing.Process(target=write, args=(settings, begin, stop, answer))
    writer.start()
    begin.wait()
    what() if callable(what) else time.sleep(seconds)
    stop.set()
    took = answer.get()
    writer.join()
    return took


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--results", type=int, default=100_000)
    asked = parser.parse_args()
    settings = Settings.model_validate({"node": {"state_dir": asked.folder}, "drift": {"every_s": 1e-9}})
    ledger = open_ledger(settings)
    if not (asked.folder / "filled").exists():
        fill(ledger, asked.results)
        (asked.folder / "filled").touch()
    spent: list[tuple[float, float]] = []

    def look() -> None:
        before, began = _cpu_s(), time.perf_counter()
        Watch(settings, ledger, Stop()).once()
        spent.append((_cpu_s() - before, time.perf_counter() - began))

    look()
    for _ in range(2):
        for name, what in (("alone", None), ("beside a look", look)):
            took = beside(settings, what, spent[-1][1])
            slow = f"median {statistics.median(took) * 1e3:.2f} ms, slowest {max(took) * 1e3:.0f} ms"
            print(f"{name}: {len(took)} commits, {slow}, {sum(one > 0.1 for one in took)} over 0.1 s")
    for cpu_s, wall_s in spent:
        print(f"a look: {cpu_s:.1f} CPU seconds, {wall_s:.1f} s")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"peak memory {peak:.0f} MiB, {datetime.now(UTC):%H:%M} UTC")
    ledger.close()


if __name__ == "__main__":
    main()
