"""What one admission costs from the last byte to the answer, without a network (scp/admission/admitter.py).

python -m benchmarks.admission [--threads 1 4 16] [--sizes 27000 525000] [--each 200] [--rounds 5] [--database sqlite]
"""

import argparse
import contextlib
import itertools
import statistics
import struct
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from config.settings import NodeSettings, ReceiveSettings, Settings
from ledger.ledger import Ledger
from ledger.store import Store
from node.logging import configure
from scp.admission.admitter import Admitter
from scp.admission.quarantine import Quarantine
from scp.network.engine import AssociationFacts, StoreRequest
from tests.support.encoded import CT, data_set, element

SYNTAX = "1.2.840.10008.1.2.1"
FRAGMENT = 65536
_number = itertools.count(1)


@dataclass(frozen=True)
class Cost:
    """Milliseconds of one admission."""

    cpu: float
    wall: float


def instance(study: int, size_bytes: int) -> tuple[str, bytes]:
    """A CT slice of about 150 elements; no two are alike."""
    number = next(_number)
    uid = f"2.25.{10**30 + number}"
    patient = element(0x00100010, "PN", f"Case^{study}") + element(0x00100020, "LO", f"case-{study}")
    many = b"".join(element(0x00180000 + 0x10 * n, "DS", "1.25") for n in range(1, 120))
    place = element(0x0020000D, "UI", f"2.25.{study}") + element(0x0020000E, "UI", f"2.25.{study}.1")
    ends = b"".join(element(0x00280000 + n, "US", struct.pack("<H", n)) for n in range(0x100, 0x110))
    pixels = element(0x7FE00010, "OW", struct.pack("<Q", number) + bytes(size_bytes))
    without = data_set(SOPInstanceUID=uid, StudyInstanceUID=None, SeriesInstanceUID=None)
    return uid, without + patient + many + place + ends + pixels


def admit(admitter: Admitter, who: AssociationFacts, uid: str, data: bytes) -> None:
    sink = admitter.begin(StoreRequest(who, CT, SYNTAX, CT, uid, 0))
    view = memoryview(data)
    for start in range(0, len(data), FRAGMENT):
        sink.write(view[start : start + FRAGMENT])
    answer = sink.commit()
    if not answer.is_success:
        raise SystemExit(f"refused: 0x{answer.status:04X} {answer.comment}")


def measure(admitter: Admitter, threads: int, each: int, size_bytes: int) -> Cost:
    """Each thread is an association that sends a study of its own."""
    studies = [next(_number) for _ in range(threads)]
    made = {study: [instance(study, size_bytes) for _ in range(each)] for study in studies}
    barrier = threading.Barrier(threads + 1)

    def association(study: int) -> None:
        who = AssociationFacts(f"bench-{study}", "BENCH", "OPENTRIAGE", "127.0.0.1")
        barrier.wait()
        for uid, data in made[study]:
            admit(admitter, who, uid, data)

    running = [threading.Thread(target=association, args=(study,)) for study in studies]
    for thread in running:
        thread.start()
    cpu, wall = time.process_time(), time.perf_counter()
    barrier.wait()
    for thread in running:
        thread.join()
    count = threads * each / 1000.0
    return Cost((time.process_time() - cpu) / count, (time.perf_counter() - wall) / count)


@contextlib.contextmanager
def _url(database: str, folder: Path) -> Iterator[str]:
    if database == "sqlite":
        yield f"sqlite:///{folder / 'ledger.sqlite'}"
        return
    from tests.support.postgres import postgres_server

    with postgres_server(folder) as url:
        yield url


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--sizes", type=int, nargs="+", default=[27_000, 525_000])
    parser.add_argument("--each", type=int, default=200, help="instances of a round, over all threads")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--database", choices=["sqlite", "postgresql"], default="sqlite")
    options = parser.parse_args()
    configure("info", "receive")
    with tempfile.TemporaryDirectory() as name, _url(options.database, Path(name)) as url:
        folder = Path(name)
        settings = Settings(node=NodeSettings(state_dir=folder), receive=ReceiveSettings(free_disk_min_bytes=0))
        ledger = Ledger.open(url, Store(folder / "store"))
        admitter = Admitter(settings, ledger, Quarantine(folder / "quarantine"))
        print(f"{options.database}; ms per admission, median (least to greatest) of {options.rounds} rounds")
        for size, threads in itertools.product(options.sizes, options.threads):
            measure(admitter, threads, 10, size)  # not measured
            costs = [measure(admitter, threads, max(1, options.each // threads), size) for _ in range(options.rounds)]
            print(f"{size:>9} bytes, {threads:>2} at once: CPU {_spread(costs, 'cpu')}, wall {_spread(costs, 'wall')}")
        ledger.close()


def _spread(costs: list[Cost], which: str) -> str:
    values = [getattr(cost, which) for cost in costs]
    return f"{statistics.median(values):.3f} ({min(values):.3f} to {max(values):.3f})"


if __name__ == "__main__":
    main()
