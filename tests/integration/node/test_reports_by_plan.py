"""The report role over a real ledger: each destination is sent what its plan says, and told of what it has."""

from collections.abc import Iterator
from io import BytesIO
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from config.settings import Destination, Settings
from ledger.completion import Completion
from ledger.delivery_records import DeliveryOutcome, DeliveryState
from ledger.ledger import Ledger
from ledger.records import ImageResult, Job, Stage, StoredObject, TriagePriority
from ledger.store import Store
from node.roles.report import Say
from node.running.lease import LeaseKeeper
from tests.support.dx import make_dx
from tests.support.findings import analysed, finding, keep
from tests.support.records import received

LOW = analysed(finding(probability=0.1), priority=TriagePriority.LOW)


def to(name: str, **wishes: Any) -> Destination:
    return Destination.model_validate({"name": name, "ae_title": "PACS", "host": "localhost", "port": 104, **wishes})


class Site:
    """One ledger and its report role; analysis and delivery are played by the test."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger

    def say(self, source: Dataset, result: ImageResult, *destinations: Destination) -> None:
        """The image arrives, is looked at with this result, and its reports are written."""
        self.look(source, result)
        self.write(*destinations)

    def look(self, source: Dataset, result: ImageResult) -> None:
        ref = keep(source, self.ledger.store)
        known = ("sop_class_uid", "sop_instance_uid", "series_instance_uid", "modality", "sha256", "path")
        values = {name: getattr(ref, name) for name in known}
        self.ledger.admit(received(ref.study_instance_uid, **values), Completion(0.0))
        (job,) = self.ledger.claim(Stage.ANALYSE, "test", 1, 60.0)
        self.ledger.finish_analysis(job, [result])

    def write(self, *destinations: Destination, at_most: int | None = None, adapters: tuple[Any, ...] = ()) -> None:
        say = Say(self.ledger, Settings(destinations=destinations, adapters=adapters))
        left = count() if at_most is None else range(at_most)
        for _, jobs in zip(left, iter(lambda: self.ledger.claim(Stage.REPORT, "test", 1, 60.0), []), strict=False):
            with LeaseKeeper(self.ledger, jobs, 60.0) as keeper:
                say.work(jobs, keeper)

    def take(self, name: str) -> list[StoredObject]:
        """The destination accepts everything that waits for it, of a choice the preferred."""
        taken: list[StoredObject] = []
        while jobs := self.ledger.claim(Stage.DELIVER, "test", 1, 60.0, name):
            taken += self._accept(jobs[0])
        return taken

    def _accept(self, job: Job) -> list[StoredObject]:
        taken = [item for item in self.ledger.undelivered(job) if item.preference == 0]
        for item in taken:
            self.ledger.record_delivery(job, DeliveryOutcome(item.object_id, DeliveryState.DELIVERED, 0, ""))
        self.ledger.finish_delivery(job)
        return taken

    def read(self, item: StoredObject) -> Dataset:
        return dcmread(BytesIO(self.ledger.store.read(item.path)))


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    store = Store(tmp_path / "store", fsync=lambda descriptor: None)
    store.prepare()
    ledger = Ledger.open(f"sqlite:///{tmp_path / 'ledger.db'}", store)
    yield Site(ledger)
    ledger.close()


def kinds(taken: list[StoredObject]) -> set[str]:
    return {item.kind for item in taken}


def predecessors(ds: Dataset) -> set[str]:
    return {
        str(image.ReferencedSOPInstanceUID)
        for study in ds.get("PredecessorDocumentsSequence", [])
        for series in study.ReferencedSeriesSequence
        for image in series.ReferencedSOPSequence
    }


def test_each_destination_is_sent_its_own_plan_and_equal_plans_the_same_objects(site: Site) -> None:
    one, same, air, nothing = to("one"), to("same"), to("air", profile="air"), to("nothing", flagged="none")
    site.say(make_dx(), analysed(), one, same, air, nothing)
    taken = {name: site.take(name) for name in ("one", "same", "air", "nothing")}
    assert kinds(taken["one"]) == {"measurement_sr", "text_sr", "secondary_capture", "key_objects"}
    assert [item.sop_instance_uid for item in taken["one"]] == [item.sop_instance_uid for item in taken["same"]]
    assert kinds(taken["air"]) == {"measurement_sr", "secondary_capture", "key_objects"}
    assert not {i.sop_instance_uid for i in taken["one"]} & {i.sop_instance_uid for i in taken["air"]}
    assert taken["nothing"] == []


def test_a_final_report_that_changes_nothing_is_reports_alone_where_the_provisional_one_went(site: Site) -> None:
    one, air, text = to("one"), to("air", profile="air"), to("text", flagged="text")
    site.look(make_dx(), analysed())
    site.write(one, air, text, at_most=1)
    before = {name: site.take(name) for name in ("one", "air", "text")}
    site.write(one, air, text, to("later"))
    after: dict[str, list[StoredObject]] = {name: site.take(name) for name in ("one", "air", "text", "later")}
    assert kinds(after["one"]) == {"measurement_sr", "text_sr"}
    assert kinds(after["air"]) == {"measurement_sr"}
    assert kinds(after["text"]) == {"text_sr"}
    assert kinds(after["later"]) == {"measurement_sr", "text_sr", "secondary_capture", "key_objects"}  # had none of it
    for name, earlier in before.items():
        documents = [item for item in earlier if item.kind.endswith("_sr")]
        assert {site.read(item).CompletionFlag for item in documents} == {"PARTIAL"}
        assert {site.read(item).CompletionFlag for item in after[name]} == {"COMPLETE"}
        named = set().union(*(predecessors(site.read(item)) for item in after[name]))
        assert named == {item.sop_instance_uid for item in documents}
    said = [str(one.value) for one in site.read(after["text"][0]).iterall() if one.keyword == "TextValue"]
    assert "Nothing changed." in said
    assert any(line.startswith("Follows the provisional AI report") for line in said)
    assert not any(line.startswith("Provisional") for line in said)


def test_adapters_are_not_told_that_nothing_changed(site: Site) -> None:
    site.look(make_dx(), analysed())
    site.write(adapters=({"kind": "hl7", "name": "ris", "host": "localhost", "port": 1},))
    assert len(site.ledger.claim(Stage.NOTIFY, "test", 10, 60.0)) == 1  # of the provisional one


def test_a_report_that_nobody_wants_is_kept_and_shown(site: Site) -> None:
    source = make_dx()
    site.say(source, analysed(), to("one", flagged="none"))
    assert site.take("one") == []
    assert {made.kind for made in site.ledger.study_objects(str(source.StudyInstanceUID))} >= {"text_sr"}


def test_without_destinations_a_report_is_kept_in_the_default_profile(site: Site) -> None:
    source = make_dx()
    site.say(source, analysed())
    made = {one.kind for one in site.ledger.study_objects(str(source.StudyInstanceUID))}
    assert made == {"measurement_sr", "text_sr", "secondary_capture", "key_objects"}


def test_a_revision_names_the_predecessor_that_its_destination_has(site: Site) -> None:
    """Not the forms that it did not take, and not what others were sent."""
    one, air = to("one"), to("air", profile="air")
    first, later = make_dx(), make_dx()
    later.StudyInstanceUID = first.StudyInstanceUID
    site.say(first, analysed(), one, air)
    before = {name: site.take(name) for name in ("one", "air")}
    site.say(later, analysed(finding("pneumothorax", 0.9)), one, air)
    after = {name: site.take(name) for name in ("one", "air")}
    for name in ("one", "air"):
        old = [item for item in before[name] if item.kind == "measurement_sr"][-1]  # after the provisional one
        (new,) = [item for item in after[name] if item.kind == "measurement_sr"]
        assert predecessors(site.read(new)) == {old.sop_instance_uid}


def test_what_was_told_is_taken_back_even_where_unflagged_studies_are_not_wanted(site: Site) -> None:
    quiet = to("one", unflagged="none")
    source = make_dx()
    site.say(source, analysed(), quiet)
    before = site.take("one")
    assert "measurement_sr" in kinds(before)
    corrected = make_dx(SOPInstanceUID=source.SOPInstanceUID, StudyInstanceUID=source.StudyInstanceUID)
    corrected.PatientComments = "corrected"
    site.say(corrected, LOW, quiet)
    (said,) = site.take("one")
    assert said.kind == "text_sr"
    final = [item for item in before if item.kind.endswith("_sr")][-2:]  # after the provisional one
    assert predecessors(site.read(said)) == {item.sop_instance_uid for item in final}


def test_an_unflagged_study_is_silent_where_nothing_was_told_before(site: Site) -> None:
    site.say(make_dx(), LOW, to("one", unflagged="none"))
    assert site.take("one") == []


def test_a_recall_reaches_the_destinations_that_have_the_report_in_their_own_profile(site: Site) -> None:
    one, air, later = to("one"), to("air", profile="air"), to("later")
    source = make_dx()
    site.say(source, analysed(), one, air)
    before = {name: site.take(name) for name in ("one", "air")}
    assert site.ledger.recall("The model was recalled.", study_uid=str(source.StudyInstanceUID)) == 1
    site.write(one, air, later)
    taken: dict[str, list[StoredObject]] = {name: site.take(name) for name in ("one", "air", "later")}
    assert kinds(taken["one"]) == {"measurement_sr", "text_sr"}
    assert kinds(taken["air"]) == {"measurement_sr"}
    assert taken["later"] == []
    for name in ("one", "air"):
        known = {item.sop_instance_uid for item in before[name]}
        for item in taken[name]:
            assert predecessors(site.read(item)) <= known
            assert predecessors(site.read(item))


def test_a_report_that_never_left_is_made_anew_after_a_recall_under_other_uids(site: Site) -> None:
    source = make_dx()
    site.say(source, LOW, to("away"))
    study = str(source.StudyInstanceUID)
    first = {one.sop_instance_uid for one in site.ledger.study_objects(study)}
    assert site.ledger.recall("a wrong threshold", study_uid=study) == 1
    site.write(to("away"))
    site.ledger.look_again(study, "another threshold")
    (job,) = site.ledger.claim(Stage.ANALYSE, "test", 1, 60.0)
    site.ledger.finish_analysis(job, [LOW])
    site.write(to("away"))
    made = [one.sop_instance_uid for one in site.ledger.study_objects(study)]
    assert site.ledger.parked() == []
    assert len(set(made)) == len(made) > len(first)
    assert [item.kind for item in site.take("away") if item.sop_instance_uid not in first][-1] == "text_sr"
