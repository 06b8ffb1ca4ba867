"""A database of the first release keeps everything, and what it said then can be recalled and corrected."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import text

import ledger as package
from ledger.audit import AuditKind
from ledger.codec import dump_result
from ledger.database import migrate, open_engine, transaction
from ledger.delivery_records import DeliveryState
from ledger.ledger import Ledger
from ledger.records import ReportKind, Stage
from ledger.store import Store
from tests.support.ledger_story import LOW, PACS, STUDY, Story
from tests.support.records import judged

ROWS = """
INSERT INTO installation VALUES ('installation_uid', '2.25.1');
INSERT INTO studies VALUES ('1.2.3', false, 1000.0, 1000.0, 1100.0, 'LOW');
INSERT INTO instances (id, study_uid, series_uid, sop_class_uid, sop_instance_uid, transfer_syntax_uid, modality,
  sha256, size_bytes, path, disposition, version, calling_ae_title, peer_address, association_id, message_priority,
  received_at)
  VALUES (1, '1.2.3', '1.2.3.1', '1.2', '1.2.3.4', '1.2.840.10008.1.2.1', 'DX', 'aa', 10, 'instances/aa', 'analyse', 1,
  'MODALITY', '127.0.0.1', 'a1', 0, 1000.0);
INSERT INTO reports VALUES (1, '1.2.3', 'final', 'LOW', 'a statement', 1050.0);
INSERT INTO objects VALUES (1, 1, 'text_sr', '1.2', '2.25.7', '2.25.8', '1.2.840.10008.1.2.1', 'bb', 'objects/bb');
INSERT INTO deliveries VALUES (1, 'PACS@127.0.0.1:104', 'delivered', 0, '', 1, 1060.0);
INSERT INTO jobs VALUES (1, 'analyse', 'succeeded', '1.2.3', 1, NULL, NULL, NULL, 1, 1000.0, 1000.0, 1, 1, NULL, NULL,
  '', 1040.0);
"""
ROLES = 8
RESULT = "INSERT INTO results VALUES (1, 1, '1.2.3', 'analysed', 'LOW', :body, 1040.0)"


@pytest.fixture
def first_release(url: str) -> str:
    """A database at revision 0001 with one delivered report in it."""
    engine = open_engine(url)
    config = Config()
    config.set_main_option("script_location", str(Path(package.__file__).parent / "migrations"))
    with transaction(engine, write=True) as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
        for statement in ROWS.split(";\n")[:-1]:
            connection.execute(text(statement))
        connection.execute(text(RESULT), {"body": dump_result(judged(LOW, 0.1))})
        if engine.dialect.name == "postgresql":
            for table in ("instances", "reports", "objects", "jobs", "results"):
                connection.execute(text(f"SELECT setval(pg_get_serial_sequence('{table}', 'id'), 10)"))
    engine.dispose()
    return url


def test_a_database_of_the_first_release_keeps_everything(first_release: str, tmp_path: Path) -> None:
    ledger = Ledger.open(first_release, Store(tmp_path / "store"))
    assert ledger.installation_uid == "2.25.1"
    [entry] = ledger.worklist()
    assert (entry.priority, entry.report_kind, entry.hold) == (LOW, ReportKind.FINAL, "")
    assert entry.deliveries == ((PACS, "delivered"),)
    [item] = ledger.study_instances(STUDY)
    assert item.results == (judged(LOW, 0.1),)
    [evidence] = [ledger.evidence(1)]
    assert [instance.sop_instance_uid for instance in evidence.instances] == ["1.2.3.4"]
    ledger.close()


def test_what_the_first_release_said_can_be_recalled_by_its_model(first_release: str, tmp_path: Path) -> None:
    ledger = Ledger.open(first_release, Store(tmp_path / "store"))
    story = Story(ledger)
    assert ledger.recall("It was wrong.", model=("chest-pneumonia", "1.0.0")) == 1
    findings = story.final()
    assert findings is not None
    assert [reference.sop_instance_uid for reference in findings.predecessors] == ["2.25.7"]
    assert findings.follows is not None
    assert findings.follows.reported_at.timestamp() == 1050.0
    assert story.states() == [DeliveryState.DELIVERED, DeliveryState.WAITING]
    ledger.close()


def test_what_the_first_release_said_is_corrected_by_a_late_image(first_release: str, tmp_path: Path) -> None:
    ledger = Ledger.open(first_release, Store(tmp_path / "store"))
    story = Story(ledger)
    story.image(judged(LOW, 0.1))
    assert not story.claimable(Stage.ANALYSE)
    findings = story.final()
    assert findings is not None
    assert (len(findings.looked_at), len(findings.predecessors)) == (2, 1)
    ledger.close()


def test_the_roles_of_many_machines_may_meet_an_empty_database_at_once(url: str, tmp_path: Path) -> None:
    engine = open_engine(url)
    migrate(engine)
    engine.dispose()
    at_once = Barrier(ROLES)

    def start(number: int) -> str:
        at_once.wait()
        ledger = Ledger.open(url, Store(tmp_path / "store"))
        ledger.audit_changed("settings:here", AuditKind.CONFIGURATION, {"port": "104"}, {})
        ledger.close()
        return ledger.installation_uid

    with ThreadPoolExecutor(ROLES) as pool:
        assert len(set(pool.map(start, range(ROLES)))) == 1


def test_no_sentence_of_an_older_release_names_a_transaction(first_release: str, tmp_path: Path) -> None:
    """Whoever reads its UID could answer in the destination's place."""
    told = (("commitment_asked", "PACS was asked to commit 2 objects (transaction 2.25.99)."), ("other", "As it was."))
    engine, config = open_engine(first_release), Config()
    config.set_main_option("script_location", str(Path(package.__file__).parent / "migrations"))
    with transaction(engine, write=True) as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0007")
        for name, said in told:
            row = {"name": name, "said": said}
            connection.execute(
                text("INSERT INTO events (study_uid, at, name, text) VALUES ('1.2.3', 1, :name, :said)"), row
            )
        proof = "It took responsibility for it (Storage Commitment, transaction 2.25.99)."
        connection.execute(text("UPDATE deliveries SET proof = 'committed', proof_text = :proof"), {"proof": proof})
    engine.dispose()
    ledger = Ledger.open(first_release, Store(tmp_path / "store"))
    assert [event.text for event in ledger.events(STUDY)] == ["PACS was asked to commit 2 objects.", "As it was."]
    [delivery] = [item.proof_text for item in ledger.study_objects(STUDY)]
    assert delivery == "It took responsibility for it (Storage Commitment)."
    ledger.close()
