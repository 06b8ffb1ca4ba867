"""An archive that gets the images too is asked how many of a study it has, before the study is reported for good.

More than are here: the study waits for another quiet time. What is listed and does not come in it is not waited for any
longer, unless the archive lists still more by then: an archive may hold for ever what nobody sends to us. What cannot
be learned is ignored and said. The deliver role asks (node/roles/count_desk.py), and while an archive takes its time
other reports are made.
"""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import structlog

from config import Settings
from ledger import deeds
from ledger.completeness import Contents
from ledger.ledger import Ledger
from ledger.records import Job, ReportKind
from node import log_events
from node.roles import count_desk
from sr_writer.association import NotOffered
from sr_writer.errors import Unreachable
from sr_writer.study_count import Listed, ListedSeries

PAUSE_S: Final = 60.0  # after no answer: reports do not stand in a line for an archive that is away
STUDIES_MAX: Final = 1_000
SOON_S: Final = 0.2  # that other reports may wait
AGAIN_S: Final = 0.5
OUT_MAX: Final = count_desk.AT_ONCE // 2  # the other places: doctor's, and of questions that were given up
NO_PLACE_MAX_S: Final = 30.0  # then a study is reported uncounted
_NOT_IMAGES = "ANN AU DOC ECG EPS FID HD KO M3D PLAN PR REG RESP RTDOSE RTPLAN RTRECORD RTSTRUCT RWV SEG SMR SR"
NOT_IMAGES: Final = frozenset(_NOT_IMAGES.split())  # Modality (0008,0060), PS3.3 C.7.3.1.1.1


@dataclass(frozen=True)
class Verdict:
    """More is to come, or nothing more is known to. text: a sentence for `explain`, without the archive's name."""

    more: bool
    text: str


class StudyCount:
    """Asks for one report role."""

    def __init__(
        self,
        ledger: Ledger,
        settings: Settings,
        now: Callable[[], float] = time.monotonic,
        soon_s: float = SOON_S,
    ) -> None:
        self._ledger = ledger
        self._settings = settings
        self._archive = count_desk.archive_of(settings)
        self._now = now
        self._soon_s = soon_s
        self._asked_again_at = 0.0
        self._questions: OrderedDict[int, _Question] = OrderedDict()  # by job: not answered yet when it was set aside
        self._no_place_since: OrderedDict[int, float] = OrderedDict()  # by job
        self._waited_for: OrderedDict[str, int] = (
            OrderedDict()
        )  # by study: what the archive listed when it was put back

    def puts_back(self, job: Job) -> bool:
        """Whether a held report waits on, and is no longer held. One that is made for a correction is not asked for."""
        if self._archive is None or job.report_kind is not ReportKind.FINAL or job.cause:
            return False
        contents = self._ledger.contents(job.study_instance_uid)
        try:
            question = self._questions.pop(job.job_id, None) or self._begun(job, contents.received + contents.own)
            if question is None or not question.is_answered(self._soon_s):
                self._set_aside(job, question)
                return True
            found = self._answer(question)
        except (NotOffered, Unreachable) as error:
            return self._not_known(job, error)
        return self._waits(job, found, contents)

    def _waits(self, job: Job, found: Listed, contents: Contents) -> bool:
        assert self._archive is not None
        study, verdict = self._settings.study, judged(found, contents)
        if verdict.more and self._is_news(job.study_instance_uid, found.instances or 0):
            because = f"{self._archive.key} {verdict.text}; none came for another {study.complete_after_s:.3g} s."
            if self._ledger.put_back(job, study.complete_after_s, study.complete_limit_s, because):
                return True
        self._waited_for.pop(job.study_instance_uid, None)
        rest = " and is not waited for any longer." if verdict.more else "."
        self._ledger.corroborated(job, f"{self._archive.key} {verdict.text}{rest}")
        return False

    def _not_known(self, job: Job, error: NotOffered | Unreachable) -> bool:
        structlog.get_logger().warning(log_events.COUNT_NOT_KNOWN, reason=str(error))
        self._ledger.corroborated(job, f"How many instances an archive has is not known: {error}")
        return False

    def _begun(self, job: Job, here: int) -> "_Question | None":
        """None: as many questions are out as may be."""
        assert self._archive is not None
        if self._now() < self._asked_again_at:
            raise Unreachable(f"{self._archive.key} did not answer a moment ago.")
        since = self._no_place_since.pop(job.job_id, self._now())
        if sum(not one.is_answered(0.0) for one in self._questions.values()) >= OUT_MAX:
            if self._now() - since > NO_PLACE_MAX_S:
                raise Unreachable(f"{self._archive.key} was asked about so many studies that this one had no turn.")
            self._no_place_since[job.job_id] = since
            return None
        self._ledger.audit(deeds.asked(job, self._archive.key, "C-FIND"))
        return _Question(lambda: count_desk.ask(self._settings, job.study_instance_uid, here))

    def _answer(self, question: "_Question") -> Listed:
        try:
            return question.answer()
        except (NotOffered, Unreachable):
            self._asked_again_at = self._now() + PAUSE_S
            raise

    def _set_aside(self, job: Job, question: "_Question | None") -> None:
        if question is not None:
            self._questions[job.job_id] = question
        for remembered in (self._questions, self._no_place_since):
            if len(remembered) > STUDIES_MAX:
                remembered.popitem(last=False)
        self._ledger.set_aside(job, AGAIN_S)

    def _is_news(self, study_uid: str, number: int) -> bool:
        """Whether it lists more than when the study was put back for it; remembered for a bounded number of studies."""
        if number <= self._waited_for.get(study_uid, 0):
            return False
        self._waited_for[study_uid] = number
        if len(self._waited_for) > STUDIES_MAX:
            self._waited_for.popitem(last=False)
        return True


class _Question:
    """One that is out, in a thread of its own. It has its own deadline."""

    def __init__(self, ask: Callable[[], Listed]) -> None:
        self._ask = ask
        self._done = threading.Event()
        self._found: Listed | NotOffered | Unreachable = Unreachable("the question failed.")
        threading.Thread(target=self._run, name="count", daemon=True).start()

    def _run(self) -> None:
        try:
            self._found = self._ask()
        except (NotOffered, Unreachable) as error:
            self._found = error
        finally:
            self._done.set()

    def is_answered(self, within_s: float) -> bool:
        """Or has failed."""
        return self._done.wait(within_s)

    def answer(self) -> Listed:
        """Raises NotOffered, Unreachable."""
        if isinstance(self._found, Listed):
            return self._found
        raise self._found


def judged(found: Listed, here: Contents) -> Verdict:
    """Hold what an archive lists against what is here. Our own results may be there or not."""
    if found.instances is None:
        return Verdict(False, "does not say how many instances of it it has")
    if found.instances == 0:
        return Verdict(False, "has nothing of it yet, which says nothing")
    if found.instances < here.received:
        return Verdict(False, f"has {found.instances} instances of it, fewer than are here, which says nothing")
    if found.instances <= here.received + here.own:
        return Verdict(False, f"has as many instances of it as are here ({here.received})")
    missing = _missing_images(found.series, here)
    if missing == 0:
        return Verdict(False, f"has all {sum(here.images.values())} images that are here, and no others of it")
    if missing is None:
        return Verdict(True, f"has {found.instances} instances of it, of which {here.received} are here")
    return Verdict(True, f"has {_images(missing)} of it more than the {sum(here.images.values())} that are here")


def _missing_images(series: tuple[ListedSeries, ...], here: Contents) -> int | None:
    """Images that are listed and are not here; None where the archive does not say it by series."""
    missing = 0
    for one in series:
        known = here.images.get(one.series_instance_uid, 0)
        if one.series_instance_uid in here.own_series or (not known and one.modality in NOT_IMAGES):
            continue
        if one.instances is None:
            return None
        missing += max(0, one.instances - known)
    return missing if series else None


def _images(count: int) -> str:
    return "1 image" if count == 1 else f"{count} images"
