"""A real ledger with instances in it, without a network."""

import hashlib
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

from ledger.completion import Completion
from ledger.database import migrate, open_engine
from ledger.ledger import Ledger
from ledger.records import ActivationMap, Disposition, ImageResult, ReceivedInstance, ResultObject, TriagePriority
from ledger.store import Store
from tests.support.records import judged, received


def open_fresh(folder: Path) -> Ledger:
    """A new SQLite ledger below `folder`."""
    return Ledger.open(laid(f"sqlite:///{folder / 'ledger.sqlite'}"), Store(folder / "store"))


def laid(url: str) -> str:
    """The URL itself. Where it means a SQLite ledger that is not there yet, it is now: what the migrations make of an
    empty file, and nobody has opened. Each process of tests runs them once for all of these (they cost 0.07 s of
    processor time); what is tested of the migrations themselves begins with no file at all."""
    path = Path(url.removeprefix("sqlite:///"))
    if url.startswith("sqlite:///") and not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(_migrated())
    return url


@cache
def _migrated() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ledger.sqlite"
        engine = open_engine(f"sqlite:///{path}")
        migrate(engine)
        engine.dispose()  # the last connection moves the log into the file
        assert [entry.name for entry in path.parent.iterdir()] == [path.name]
        return path.read_bytes()


def admit(ledger: Ledger, number: int = 1, study: int | None = None, disposition: Disposition = Disposition.ANALYSE,
          complete_after_s: float = 20.0) -> ReceivedInstance:  # fmt: skip
    """A stored instance of invented bytes, admitted; UIDs from the numbers."""
    content = f"instance {number}".encode()
    digest = hashlib.sha256(content).hexdigest()
    instance = received(
        f"2.25.{3000 + (number if study is None else study)}",
        sop_instance_uid=f"2.25.{1000 + number}",
        series_instance_uid=f"2.25.{2000 + number}",
        sha256=digest,
        size_bytes=len(content),
        path=ledger.store.put("instances", digest, ".dcm", content),
        disposition=disposition,
    )
    ledger.admit(instance, Completion(complete_after_s))
    return instance


def analysed(probability: float = 0.93, priority: TriagePriority = TriagePriority.HIGH) -> ImageResult:
    """What a model says of one image, with a map and advice."""
    result = judged(priority, probability)
    [finding] = result.findings
    activation = ActivationMap(((0.0, 1.0), (0.5, 0.2)), (0.0, 0.0, 256.0, 256.0))
    return replace(
        result,
        findings=(replace(finding, probability_sd=0.04, activation=activation),),
        recommendations=("Read with priority.",),
        source_rows=256,
        source_columns=256,
    )


def all_to(objects: Sequence[tuple[ResultObject, str]], destinations: Sequence[str]) -> dict[str, list[str]]:
    """Every object for every destination, as `Ledger.finish_report` is told."""
    return {destination: [made.sop_instance_uid for made, _ in objects] for destination in destinations}
