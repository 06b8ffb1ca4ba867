"""Whose a study is, when somebody who may know asks. The analyse role reads it from the stored image (the verb `header`
of node/looking/server.py): this process takes nothing apart that a stranger sent. Never logged, never written down."""

from collections import OrderedDict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from math import inf
from pathlib import Path
from threading import Lock
from time import monotonic
from typing import Any, Final

from config import Settings
from ledger.ledger import Ledger
from node.looking.wire import HEADERS_MAX, NOT_NOW, NoAnalyser, Refusal, ask
from sr_writer.whose import is_whose

KEPT_MAX: Final = 1_024  # in memory, so that a page that renews itself does not ask for each anew
WITHIN_S: Final = 2.0  # for all that a page asks
SLACK_S: Final = 0.5  # for the answer's way, and the last header that was begun in time
AWAY_S: Final = 5.0  # when nobody answered: so long nobody is asked, so that no page waits for nothing
NOT_NOW_S: Final = 60.0  # so long a header that took its reader's time, or life, is not asked for again


@dataclass(frozen=True)
class Identity:
    """As the image says it, for a person to read; empty where it does not say."""

    name: str = field(repr=False)
    patient_id: str = field(repr=False)
    birth_date: str = field(repr=False)
    sex: str = field(repr=False)
    accession: str = field(repr=False)
    taken: str = field(repr=False)

    @property
    def is_empty(self) -> bool:
        return not any((self.name, self.patient_id, self.birth_date, self.accession))


@dataclass(frozen=True)
class Whose:
    """known: by study. not_now: the studies of which nobody can say it at the moment. Of all others no image is stored,
    or none that can be read."""

    known: Mapping[str, Identity] = field(default_factory=dict, repr=False)
    not_now: frozenset[str] = frozenset()


@dataclass(frozen=True)
class _Kept:
    """identity: None where there is none to be read, or none until then (time.monotonic())."""

    stamp: tuple[int, int, int]  # of the file it was read from
    identity: Identity | None = field(repr=False)
    until: float = inf

    @property
    def is_for_good(self) -> bool:
        return self.until == inf


class Identities:
    """Asks, and remembers the last answers as long as the process lives and their files stay as they are."""

    def __init__(self, settings: Settings, ledger: Ledger) -> None:
        self._settings = settings
        self._ledger = ledger
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        self._lock = Lock()
        self._away_until = 0.0

    def of_study(self, study_uid: str) -> Whose:
        return self.of_studies([study_uid])

    def of_studies(self, study_uids: Collection[str]) -> Whose:
        """By the first image of each that is stored."""
        images = self._ledger.first_images(study_uids)
        stamps = self._stamps(images.values())
        found = self._remembered(stamps)
        found |= self._asked({name: stamp for name, stamp in stamps.items() if name not in found})
        read = {name: kept.identity for name, kept in found.items() if kept.is_for_good}
        known = {uid: who for uid, name in images.items() if (who := read.get(name))}
        return Whose(known, frozenset(uid for uid, name in images.items() if name in stamps and name not in read))

    def _stamps(self, names: Iterable[str]) -> dict[str, tuple[int, int, int]]:
        """Of the files that are there. Of one that was removed by retention, or forgotten, nothing is remembered."""
        stamps = {name: _stamp(self._ledger.store.path(name)) for name in names}
        with self._lock:
            for name in [name for name, stamp in stamps.items() if stamp is None]:
                self._kept.pop(name, None)
        return {name: stamp for name, stamp in stamps.items() if stamp is not None}

    def _remembered(self, stamps: Mapping[str, tuple[int, int, int]]) -> dict[str, _Kept]:
        found: dict[str, _Kept] = {}
        now = monotonic()
        with self._lock:
            for name, stamp in stamps.items():
                kept = self._kept.get(name)
                if kept is not None and kept.stamp == stamp and now < kept.until:
                    self._kept.move_to_end(name)
                    found[name] = kept
        return found

    def _asked(self, stamps: Mapping[str, tuple[int, int, int]]) -> dict[str, _Kept]:
        found: dict[str, _Kept] = {}
        names, until = list(stamps), monotonic() + WITHIN_S
        try:
            for start in range(0, len(names), HEADERS_MAX):
                if not self._away_until <= monotonic() < until:
                    break
                some = names[start : start + HEADERS_MAX]
                found |= {name: _kept(stamps[name], said) for name, said in self._answers(some, until - monotonic())}
        except (NoAnalyser, Refusal):
            self._away_until = monotonic() + AWAY_S
        self._remember(found)
        return found

    def _answers(self, names: Sequence[str], within_s: float) -> Iterator[tuple[str, object]]:
        """Fewer than names where time was up. Raises NoAnalyser, Refusal."""
        said = ask(self._settings, "header", within_s, SLACK_S, images=names).said.get("headers")
        yield from zip(names, said if isinstance(said, list) else (), strict=False)

    def _remember(self, fresh: Mapping[str, _Kept]) -> None:
        with self._lock:
            self._kept.update(fresh)
            while len(self._kept) > KEPT_MAX:
                self._kept.popitem(last=False)


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        file = path.stat()
    except OSError:
        return None
    return file.st_ino, file.st_mtime_ns, file.st_size


def _kept(stamp: tuple[int, int, int], said: Any) -> _Kept:
    """said: one of an answer's headers, which may be anything."""
    if said is NOT_NOW:
        return _Kept(stamp, None, monotonic() + NOT_NOW_S)
    return _Kept(stamp, _identity(said) if is_whose(said) else None)


def _identity(said: Mapping[str, str]) -> Identity:
    return Identity(
        name=_person(said["PatientName"]),
        patient_id=said["PatientID"],
        birth_date=_date(said["PatientBirthDate"]),
        sex=said["PatientSex"],
        accession=said["AccessionNumber"],
        taken=" ".join(part for part in (_date(said["StudyDate"]), _time(said["StudyTime"])) if part),
    )


def _person(value: str) -> str:
    """PS3.5 6.2.1: "Family^Given^Middle^Prefix^Suffix", of up to three groups the first that says anything."""
    group = next((part for part in value.split("=") if part.strip("^ ")), "")
    family, *rest = [part.strip() for part in group.split("^")]
    others = " ".join(part for part in rest if part)
    return ", ".join(part for part in (family, others) if part)


def _date(value: str) -> str:
    try:
        return f"{datetime.strptime(value[:8], '%Y%m%d'):%Y-%m-%d}"
    except ValueError:
        return ""


def _time(value: str) -> str:
    return f"{value[:2]}:{value[2:4]}" if len(value) >= 4 and value[:4].isdigit() else ""
