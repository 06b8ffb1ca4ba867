"""An archive is asked how many instances of a study it has before the study is reported for good."""

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom import AE, evt
from structlog.testing import capture_logs

from config import load_settings
from config.settings import DeliverSettings, Destination, NodeSettings, Settings, StudySettings
from ledger.audit import AuditKind
from ledger.completeness import COMPLETE, Contents
from ledger.completion import Completion
from ledger.ledger import Ledger
from ledger.records import Job, ReportKind, Stage
from ledger.trail import Asked
from node.checkup import peers
from node.checkup.lines import Level
from node.roles import count_desk
from node.roles import counting as counting_role
from node.roles.count_desk import CountDesk
from node.roles.counting import STUDIES_MAX, StudyCount, judged
from node.wiring import open_ledger
from sr_writer.find import STUDY_ROOT_FIND
from sr_writer.study_count import Listed, ListedSeries
from tests.support import halting
from tests.support.ledger_story import LOW, SOON_S, STUDY, Story
from tests.support.ledgers import open_fresh
from tests.support.peers import free_port
from tests.support.realdata import ROOT
from tests.support.records import judged as looked
from tests.support.records import received

SERIES = f"{STUDY}.1"


class Archive:
    """Answers C-FIND with what a test says. status: of the last answer."""

    def __init__(self) -> None:
        self.port = free_port()
        self.study: int | None = 0
        self.series: list[tuple[str, str, int | None]] = []
        self.status = 0x0000
        self.asked: list[str] = []
        self.other_study = False

    def find(self, event: Any) -> Iterator[tuple[int, Dataset | None]]:
        level = str(event.identifier.QueryRetrieveLevel)
        self.asked.append(level)
        if self.status:
            yield self.status, None
        elif level == "STUDY":
            yield from self._answer(NumberOfStudyRelatedInstances=self.study)
        else:
            for uid, modality, count in self.series:
                yield from self._answer(SeriesInstanceUID=uid, Modality=modality, NumberOfSeriesRelatedInstances=count)

    def _answer(self, **values: Any) -> Iterator[tuple[int, Dataset]]:
        match = Dataset()
        match.StudyInstanceUID = "1.9.9" if self.other_study else STUDY
        for keyword, value in values.items():
            if value is not None:
                setattr(match, keyword, value)
        yield 0xFF00, match

    def destination(self) -> Destination:
        return Destination(name="archive", ae_title="ARCHIVE", host="127.0.0.1", port=self.port)


@pytest.fixture
def archive() -> Iterator[Archive]:
    made = Archive()
    ae = AE(ae_title="ARCHIVE")
    ae.add_supported_context(STUDY_ROOT_FIND, [ExplicitVRLittleEndian])
    server = ae.start_server(("127.0.0.1", made.port), block=False, evt_handlers=[(evt.EVT_C_FIND, made.find)])
    assert server is not None
    yield made
    server.shutdown()


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    opened = open_fresh(tmp_path)
    yield opened
    opened.close()


def settings_of(to: Destination, tmp_path: Path, response_timeout_s: float = 10.0, **study: float) -> Settings:
    return Settings(
        node=NodeSettings(state_dir=tmp_path),
        study=StudySettings.model_validate({"complete_after_s": 0.01, "count_at": "archive", **study}),
        deliver=DeliverSettings(connect_timeout_s=30.0, response_timeout_s=response_timeout_s),
        destinations=(to,),
    )


@contextmanager
def desk(settings: Settings) -> Iterator[None]:
    """What the deliver role runs."""
    made = CountDesk(settings, settings.destinations[0])
    made.start()
    yield
    made.stop()


@pytest.fixture(name="desk")
def desk_of_archive(archive: Archive, tmp_path: Path) -> Iterator[None]:
    with desk(settings_of(archive.destination(), tmp_path)):
        yield


def counting(ledger: Ledger, archive: Archive, tmp_path: Path, **study: float) -> StudyCount:
    """That waits for the answer, however busy the machine."""
    return StudyCount(ledger, settings_of(archive.destination(), tmp_path, **study), soon_s=20.0)


def image(story: Story) -> None:
    story.ledger.admit(received(STUDY, series_instance_uid=SERIES), Completion(SOON_S, 900.0, "Quiet."))
    story.look(looked(LOW, 0.1))


def due(story: Story, images: int = 2) -> Job:
    for _ in range(images):
        image(story)
    return story.next(Stage.REPORT)


def grounds(story: Story, job: Job) -> str:
    story.report(job=job)
    [text] = [event.text for event in story.ledger.events(STUDY) if event.name == COMPLETE]
    return text


@pytest.mark.usefixtures("desk")
def test_as_many_there_as_here(ledger: Ledger, archive: Archive, tmp_path: Path) -> None:
    story, archive.study = Story(ledger), 2
    job = due(story)
    assert not counting(ledger, archive, tmp_path).puts_back(job)
    assert grounds(story, job) == "Quiet. archive has as many instances of it as are here (2)."
    assert archive.asked == ["STUDY"]


@pytest.mark.usefixtures("desk")
def test_that_an_archive_was_asked_is_in_the_audit_trail(ledger: Ledger, archive: Archive, tmp_path: Path) -> None:
    story, archive.study = Story(ledger), 2
    job = due(story)
    counting(ledger, archive, tmp_path).puts_back(job)
    [line] = [line for line in ledger.audit_log(Asked(study_uid=STUDY)) if line.kind is AuditKind.QUERY]
    assert (line.actor, line.detail["to"], line.detail["how"]) == ("node:report", "archive", "C-FIND")


@pytest.mark.usefixtures("desk")
def test_more_there_than_here_is_waited_for_once_more(ledger: Ledger, archive: Archive, tmp_path: Path) -> None:
    story, archive.study, archive.series = Story(ledger), 3, [(SERIES, "DX", 3)]
    count, job = counting(ledger, archive, tmp_path), due(story)
    assert count.puts_back(job)
    image(story)
    job = story.next(Stage.REPORT)
    assert not count.puts_back(job)
    assert grounds(story, job) == "Quiet. archive has as many instances of it as are here (3)."
    [waited] = [event.text for event in ledger.events(STUDY) if event.name == "study_waits"]
    assert waited == "archive has 1 image of it more than the 2 that are here; none came for another 0.01 s."


@pytest.mark.usefixtures("desk")
def test_what_never_comes_is_not_waited_for_twice(ledger: Ledger, archive: Archive, tmp_path: Path) -> None:
    story, archive.study, archive.series = Story(ledger), 3, [(SERIES, "DX", 3)]
    count = counting(ledger, archive, tmp_path)
    assert count.puts_back(due(story))
    archive.study, archive.series = 4, [(SERIES, "DX", 4)]  # it grows there: more may be on its way
    assert count.puts_back(story.next(Stage.REPORT))
    job = story.next(Stage.REPORT)
    assert not count.puts_back(job)
    assert grounds(story, job).endswith(
        "archive has 2 images of it more than the 2 that are here and is not waited for any longer."
    )


@pytest.mark.usefixtures("desk")
def test_nothing_is_waited_for_beyond_the_limit(ledger: Ledger, archive: Archive, tmp_path: Path) -> None:
    story, archive.study, archive.series = Story(ledger), 3, [(SERIES, "DX", 3)]
    short = {"complete_after_min_s": 0.001, "complete_after_max_s": 0.001, "complete_limit_s": 0.001}
    assert not counting(ledger, archive, tmp_path, **short).puts_back(due(story))


@pytest.mark.usefixtures("desk")
def test_what_an_archive_does_not_say_changes_nothing(ledger: Ledger, archive: Archive, tmp_path: Path) -> None:
    story, archive.study = Story(ledger), None
    job = due(story)
    assert not counting(ledger, archive, tmp_path).puts_back(job)
    assert grounds(story, job) == "Quiet. archive does not say how many instances of it it has."


@pytest.mark.usefixtures("desk")
def test_an_archive_that_answers_for_another_study_has_said_nothing(
    ledger: Ledger, archive: Archive, tmp_path: Path
) -> None:
    story, archive.study, archive.other_study = Story(ledger), 50, True
    assert not counting(ledger, archive, tmp_path).puts_back(due(story))


@pytest.mark.usefixtures("desk")
@pytest.mark.parametrize("status", [0xA700, 0xC001])
def test_an_archive_that_does_not_answer_delays_nothing_and_is_left_alone_for_a_while(
    ledger: Ledger, archive: Archive, tmp_path: Path, status: int
) -> None:
    story, archive.status = Story(ledger), status
    count, job = counting(ledger, archive, tmp_path), due(story)
    assert not count.puts_back(job)
    assert "How many instances an archive has is not known: archive " in grounds(story, job)
    archive.status, archive.study = 0, 50
    assert not count.puts_back(due(story))
    assert archive.asked == ["STUDY"]


def test_an_archive_that_is_away_delays_nothing(ledger: Ledger, tmp_path: Path) -> None:
    story, nobody = Story(ledger), Archive()
    job = due(story)
    with desk(settings_of(nobody.destination(), tmp_path)):
        assert not counting(ledger, nobody, tmp_path).puts_back(job)
    assert "no connection to archive" in grounds(story, job)


def test_where_nobody_asks_for_the_report_role_it_goes_without(
    ledger: Ledger, archive: Archive, tmp_path: Path
) -> None:
    story, archive.study = Story(ledger), 50
    job = due(story)
    with capture_logs() as logs:
        assert not counting(ledger, archive, tmp_path).puts_back(job)
    assert "the deliver role of this machine, which asks, takes no question now" in grounds(story, job)
    assert [(line["event"], line["log_level"]) for line in logs] == [("count_not_known", "warning")]


@pytest.mark.parametrize("halt", [halting.half_a_pdu, halting.dripping])
def test_an_archive_that_falls_silent_holds_neither_its_study_nor_others(
    ledger: Ledger, tmp_path: Path, halt: halting.Halt
) -> None:
    story = Story(ledger)
    with halting.Halting(halt) as silent:
        to = Destination(name="archive", ae_title="ARCHIVE", host="127.0.0.1", port=silent.port)
        settings = settings_of(to, tmp_path, response_timeout_s=1.0)
        with desk(settings):
            count, job, asides = StudyCount(ledger, settings, soon_s=0.01), due(story), 0
            began = time.monotonic()
            while count.puts_back(job):
                asides += 1  # the thread is free for others meanwhile
                job = story.next(Stage.REPORT)
            assert time.monotonic() - began < 50.0
    assert asides
    assert job.attempt == 1
    assert grounds(story, job).startswith("Quiet. How many instances an archive has is not known: archive ")


def test_more_studies_than_the_deliver_role_has_places_for_are_all_counted(
    ledger: Ledger, archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    story, slow, asked = Story(ledger), threading.Event(), []
    studies = [f"{STUDY}.{number}" for number in range(2 * count_desk.AT_ONCE)]
    for study in studies:
        story.image(looked(LOW, 0.1), study=study)
    really = CountDesk._answer

    def answer(one: CountDesk, question: dict[str, Any]) -> dict[str, Any]:
        asked.append(question["study"])
        slow.wait(20.0)
        return really(one, question)

    monkeypatch.setattr(CountDesk, "_answer", answer)
    monkeypatch.setattr(counting_role, "AGAIN_S", 0.01)
    settings = settings_of(archive.destination(), tmp_path, response_timeout_s=10.0)
    done: set[str] = set()
    with desk(settings), capture_logs() as logs:
        count = StudyCount(ledger, settings, soon_s=0.01)
        while len(done) < len(studies):
            job = story.next(Stage.REPORT)
            if not count.puts_back(job):
                done.add(job.study_instance_uid)
                ledger.finish_report(job, None)
            if len(asked) >= counting_role.OUT_MAX:
                slow.set()
    assert sorted(asked) == sorted(studies)
    assert "count_not_known" not in [line["event"] for line in logs]


def test_a_study_that_has_no_turn_at_a_slow_archive_is_reported_all_the_same(
    ledger: Ledger, archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(counting_role, "OUT_MAX", 0)
    monkeypatch.setattr(counting_role, "AGAIN_S", 0.0)
    story, now = Story(ledger), 0.0
    settings = settings_of(archive.destination(), tmp_path)
    count, job = StudyCount(ledger, settings, now=lambda: now), due(story)
    assert count.puts_back(job)
    now = counting_role.NO_PLACE_MAX_S
    assert count.puts_back(job := story.next(Stage.REPORT))
    now += 1.0
    assert not count.puts_back(job := story.next(Stage.REPORT))
    assert grounds(story, job).endswith("archive was asked about so many studies that this one had no turn.")


def test_a_report_that_waits_for_an_answer_gives_way_to_a_newer_one(
    ledger: Ledger, archive: Archive, tmp_path: Path
) -> None:
    story, archive.study = Story(ledger), 3
    job = due(story)
    image(story)
    ledger.set_aside(job, 0.0)
    newer = story.next(Stage.REPORT)
    assert newer.job_id != job.job_id
    assert not ledger.claim(Stage.REPORT, "test", 1, 60.0)


CONFINED = """
import sys
from pathlib import Path
from config import load_settings
from node.logging import configure
from node.running.confine import confine
role, config = sys.argv[1:]
settings = load_settings(Path(config))
configure("info", role)
confine(role, settings)
if role == "deliver":
    from node.roles.count_desk import CountDesk, archive_of
    CountDesk(settings, archive_of(settings)).start()
    print("ready", flush=True)
    sys.stdin.read()
else:
    from ledger.records import Stage
    from node.roles.counting import StudyCount
    from node.wiring import open_ledger
    ledger = open_ledger(settings)
    [job] = ledger.claim(Stage.REPORT, "report", 1, 60.0)
    print(StudyCount(ledger, settings, soon_s=20.0).puts_back(job))
"""


def test_roles_that_gave_up_all_that_they_do_not_need_ask_an_archive_by_its_name(
    archive: Archive, tmp_path: Path
) -> None:
    archive.study, archive.series = 3, [(SERIES, "DX", 3)]
    config = tmp_path / "opentriage.toml"
    config.write_text(
        f'[node]\nstate_dir = "{tmp_path / "state"}"\n[study]\ncount_at = "archive"\n[[destinations]]\n'
        f'name = "archive"\nae_title = "ARCHIVE"\nhost = "localhost"\nport = {archive.port}\n'
    )
    ledger = open_ledger(load_settings(config))
    story = Story(ledger)
    image(story)
    image(story)

    def command(role: str) -> list[str]:
        return [sys.executable, "-c", CONFINED, role, str(config)]

    pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "cwd": ROOT}
    with subprocess.Popen(command("deliver"), **pipes) as deliver:
        try:
            assert deliver.stdout is not None
            assert deliver.stdout.readline() == "ready\n"
            done = subprocess.run(command("report"), cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
        finally:
            deliver.kill()
    assert done.stdout == "True\n", done.stderr
    [waited] = [event.text for event in ledger.events(STUDY) if event.name == "study_waits"]
    assert waited.startswith("archive has 1 image of it more than the 2 that are here")
    ledger.close()


def test_doctor_says_whether_the_archive_can_be_asked(
    archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_of(archive.destination(), tmp_path)
    monkeypatch.setattr(peers, "runs", lambda _: True)
    [found, nobody] = peers.counted(settings.destinations[0], settings)
    assert (found.level, nobody.level) == (Level.OK, Level.WARNING)
    assert "takes no question" in nobody.found
    with desk(settings):
        [found] = peers.counted(settings.destinations[0], settings)
    away = settings_of(Archive().destination(), tmp_path)
    with desk(away):
        [found] = peers.counted(away.destinations[0], away)
    assert (found.level, archive.asked) == (Level.WARNING, [])


def test_a_report_that_is_made_for_a_correction_asks_nobody(ledger: Ledger, archive: Archive, tmp_path: Path) -> None:
    story, archive.study = Story(ledger), 50
    story.reported(looked(LOW, 0.1))
    ledger.look_again(STUDY, "A newer model looks.")
    story.look(looked(LOW, 0.1))
    job = story.next(Stage.REPORT)
    assert (job.report_kind, job.cause) == (ReportKind.FINAL, "A newer model looks.")
    assert not counting(ledger, archive, tmp_path).puts_back(job)
    assert archive.asked == []


def test_nobody_is_asked_unless_the_settings_say_whom(ledger: Ledger, archive: Archive) -> None:
    story, archive.study = Story(ledger), 50
    settings = Settings(destinations=(archive.destination(),))
    assert not StudyCount(ledger, settings).puts_back(due(story))
    assert archive.asked == []


HERE = Contents(5, {"1.1": 3, "1.2": 1}, 2, frozenset({"1.9"}))  # 4 images and a report of others; 2 results of ours


@pytest.mark.parametrize(
    ("found", "more", "text"),
    [
        (Listed(None), False, "does not say"),
        (Listed(0), False, "nothing of it yet"),
        (Listed(4), False, "has 4 instances of it, fewer than are here"),
        (Listed(5), False, "has as many instances of it as are here (5)"),
        (Listed(7), False, "has as many instances of it as are here (5)"),  # our own are there too
        (Listed(8), True, "has 8 instances of it, of which 5 are here"),
        (Listed(8, (ListedSeries("1.1", "CT", 3), ListedSeries("1.2", "CT", 2))), True, "has 1 image of it more"),
        (Listed(9, (ListedSeries("1.1", "CT", 3), ListedSeries("1.3", "CT", 6))), True, "has 6 images of it more"),
        (Listed(8, (ListedSeries("1.1", "CT", 3), ListedSeries("1.2", "CT", 1), ListedSeries("1.4", "PR", 4))), False,
         "has all 4 images that are here, and no others"),
        (Listed(8, (ListedSeries("1.1", "CT", 3), ListedSeries("1.2", "CT", 1), ListedSeries("1.9", "OT", 4))), False,
         "has all 4 images"),  # our own pictures
        (Listed(8, (ListedSeries("1.1", "CT", None),)), True, "has 8 instances of it, of which 5 are here"),
    ],
)  # fmt: skip
def test_what_an_archive_lists_is_held_against_what_is_here(found: Listed, more: bool, text: str) -> None:
    verdict = judged(found, HERE)
    assert verdict.more is more
    assert text in verdict.text


def test_only_so_many_studies_are_remembered(ledger: Ledger, archive: Archive, tmp_path: Path) -> None:
    count = counting(ledger, archive, tmp_path)
    for number in range(STUDIES_MAX + 10):
        assert count._is_news(f"1.{number}", 5)
    assert len(count._waited_for) == STUDIES_MAX
