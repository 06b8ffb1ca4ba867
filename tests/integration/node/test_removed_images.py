"""What was said of images that retention has removed can be taken back; in shadow all is made and none sent."""

from pathlib import Path

from ledger.delivery_records import DeliveryState
from ledger.ledger import Ledger
from ledger.records import Stage
from ledger.retention import Rules
from ledger.store import Store
from sr_writer.guard import Guard
from tests.integration.node.test_reports_by_plan import Site, site, to
from tests.support.dx import make_dx
from tests.support.findings import analysed

__all__ = ["site"]


def test_a_report_is_recalled_after_its_images_were_removed(site: Site) -> None:
    one = to("one")
    source = make_dx()
    site.say(source, analysed(), one)
    [*_, first] = site.take("one")
    ledger, study = site.ledger, str(source.StudyInstanceUID)
    assert ledger.remove_old(Rules(images_s=1e-9, without_proof=True), of_images=True).instances == 1
    assert ledger.recall("The model was wrong on this detector.", study_uid=study) == 1
    site.write(one)
    guard = Guard(ledger.store, ledger.evidence, ledger.own_objects)
    [job] = ledger.claim(Stage.DELIVER, "test", 1, 60.0, "one")
    withdrawal = ledger.undelivered(job)
    assert withdrawal
    for item in withdrawal:
        guard.prove(item, ledger.store.read(item.path))  # it may leave
        assert site.read(item).PatientID == source.PatientID
    assert first.sop_instance_uid not in {item.sop_instance_uid for item in withdrawal}


def test_in_shadow_mode_the_report_role_makes_everything_and_queues_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path / "store", fsync=lambda descriptor: None)
    store.prepare()
    ledger = Ledger.open(f"sqlite:///{tmp_path / 'ledger.db'}", store, in_shadow=True)
    source = make_dx()
    Site(ledger).say(source, analysed(), to("one"), to("two", profile="air"))
    made = ledger.study_objects(str(source.StudyInstanceUID))
    assert {item.destination for item in made} == {"one", "two"}
    assert {item.state for item in made} == {DeliveryState.SHADOW}
    assert all(store.path(item.path).is_file() for item in made)
    assert not ledger.claim(Stage.DELIVER, "test", 1, 60.0)
    ledger.close()
