"""A study that was to be forgotten is nowhere in the state folder: no file, no row, no trace in the ledger."""

import hashlib
import json
from pathlib import Path

import pytest
from sqlalchemy import select
from typer.testing import CliRunner, Result

from config import Settings
from ledger.audit import AuditKind
from ledger.commitment_results import CommitmentRequest, Listed
from ledger.completion import Completion
from ledger.damage import Damaged, found
from ledger.database import transaction
from ledger.forgetting import NotForgotten
from ledger.opinions import Judged
from ledger.records import Disposition, ReceivedInstance, Stage
from ledger.tables import audit_records, metadata
from node.cli import app
from tests.support.dx import make_dx, write
from tests.support.ledger_story import HIGH, HOUR_S, PACS, Story
from tests.support.records import judged, received

STUDY, OTHER = "1.2.840.424242.7", "1.2.840.777.7"
NAME, PATIENT = "SENTINEL^FORGOTTEN", "SENTINEL-4711"
DIGEST = "e" * 64


@pytest.fixture
def sent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Outside of the state folder."""
    return tmp_path_factory.mktemp("sent")


def run(site: Path, *words: str, **options: str) -> Result:
    return CliRunner().invoke(app, ["forget", *words, "-c", str(site)], **options)  # type: ignore[arg-type]


def stored(story: Story, study: str, folder: Path, name: str = NAME) -> ReceivedInstance:
    """A radiograph with a real header, received."""
    uid = f"{study}.{len(list(folder.iterdir()))}"
    header = {"PatientName": name, "PatientID": PATIENT if name == NAME else "ELSE", "StudyInstanceUID": study}
    content = write(make_dx(SOPInstanceUID=uid, **header), folder / f"{uid}.dcm").read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    path = story.ledger.store.put("instances", digest, ".dcm", content)
    instance = received(study, sop_instance_uid=uid, sha256=digest, path=path, patient_digest=DIGEST)
    story.ledger.admit(instance, Completion(0.01))
    return instance


def whole_story(story: Story, settings: Settings, folder: Path, study: str = STUDY, name: str = NAME) -> None:
    """A study that has left a trace everywhere."""
    ledger = story.ledger
    instance = stored(story, study, folder, name)
    story.look(judged(HIGH))
    story.final(PACS, notify=("ris",))
    while story.claimable(Stage.DELIVER):
        story.deliver(prove_after_s=0.0)
    for job in ledger.claim(Stage.PROVE, "test", 10, 60.0):
        uids = [item.sop_instance_uid for item in ledger.unproven(job)]
        ledger.commitment_asked(PACS, f"{study}.99.{job.job_id}", [(job, uids)])
        ledger.finish_proof(job)
    [item] = ledger.study_instances(study)
    assert ledger.give_opinion(
        Judged(study, item.instance.instance_id, "chest-pneumonia", "1.0.0", "pneumonia"), True, "anna"
    )
    story.note("113039", instance, study=study)
    listed = (
        Listed(instance.sop_class_uid, instance.sop_instance_uid),
        Listed("1.2", f"{study}.not-here".replace("not-here", "88")),
    )
    ledger.commitment_requested(CommitmentRequest("MODALITY", f"{study}.77", listed), HOUR_S)
    with transaction(ledger._engine, write=True) as connection:
        found(connection, [Damaged(item.instance.instance_id, instance.sop_instance_uid, study)])
    quarantine = settings.node.state_dir / "quarantine"
    quarantine.mkdir(exist_ok=True)
    (quarantine / f"{name[:3]}.broken").write_bytes(b"\0" * (1 << 20) + name.encode() + b"\0" * 10)


def naming(settings: Settings, *sentinels: str) -> list[str]:
    """Files of the state folder with any of these in them, or in their names."""
    wanted = [one.encode() for one in sentinels]
    files = [path for path in settings.node.state_dir.rglob("*") if path.is_file()]
    return [str(path) for path in files if any(one in path.read_bytes() + str(path).encode() for one in wanted)]


def filled(story: Story) -> set[str]:
    with transaction(story.ledger._engine, write=False) as connection:
        return {table.name for table in metadata.sorted_tables if connection.execute(select(table).limit(1)).first()}


def test_a_forgotten_study_is_nowhere_and_another_is_untouched(
    site: Path, settings: Settings, story: Story, sent: Path
) -> None:
    whole_story(story, settings, sent)
    mine = filled(story)
    whole_story(story, settings, sent, OTHER, "SOMEBODY^ELSE")
    before = story.ledger.study_objects(OTHER)
    assert {Path(path).suffix[:7] for path in naming(settings, STUDY, NAME)} >= {".sqlite", ".dcm", ".broken"}
    refused = run(site, STUDY, "--yes")
    assert refused.exit_code == 1
    assert "MODALITY was promised" in refused.output
    assert story.ledger.study_instances(STUDY)
    done = run(site, STUDY, "--yes", "--even-undelivered")
    assert done.exit_code == 0, done.output
    assert f"not touched: {OTHER}" in done.output
    assert naming(settings, STUDY, NAME, PATIENT) == []
    assert "opinions" in mine  # the test has filled what it empties
    assert {"commitment_objects", "notifications", "rejections", "stated_contents", "damaged_files"} <= mine
    assert story.ledger.study_objects(OTHER) == before
    assert {Path(path).suffix for path in naming(settings, "SOMEBODY^ELSE")} == {".dcm", ".broken"}


def test_without_writing_the_ledgers_file_anew_traces_would_be_left(
    settings: Settings, story: Story, sent: Path
) -> None:
    """The control of the test above."""
    stored(story, STUDY, sent)
    story.look(judged(HIGH))
    story.ledger.forget(STUDY, "user:test", {}, despite=True)
    assert any("ledger.sqlite" in path for path in naming(settings, STUDY))
    story.ledger.rewrite()
    assert naming(settings, STUDY) == []


def test_the_audit_trail_keeps_that_it_was_done_and_not_what(site: Path, story: Story, sent: Path) -> None:
    stored(story, STUDY, sent)
    assert run(site, STUDY, "--yes", "--even-undelivered").exit_code == 0
    with transaction(story.ledger._engine, write=False) as connection:
        kept = connection.execute(select(audit_records).where(audit_records.c.kind == AuditKind.STUDY_DELETED)).one()
    assert kept.study_key
    assert kept.patient_key == DIGEST
    assert kept.actor.startswith("user:")
    said = json.loads(kept.detail)
    assert said["despite"] > 0  # how much stood against it, and nobody's sentence about it
    assert [value for value in said.values() if isinstance(value, str)] == ["study"]


def test_there_is_no_place_for_a_sentence_that_the_trail_would_keep_for_ever(
    site: Path, story: Story, sent: Path
) -> None:
    stored(story, STUDY, sent)
    assert run(site, STUDY, "--yes", "--even-undelivered", "They asked for it.").exit_code == 2
    assert story.ledger.study_instances(STUDY)


def test_what_is_under_way_is_not_erased_under_somebodys_hands(site: Path, story: Story, sent: Path) -> None:
    stored(story, STUDY, sent)
    with pytest.raises(NotForgotten, match="analyse job waits"):  # asked again under the study's lock
        story.ledger.forget(STUDY, "user:test", {})
    story.next(Stage.ANALYSE)
    refused = run(site, STUDY, "--yes", "--even-undelivered")
    assert refused.exit_code == 1
    assert "an analyse job of it runs" in refused.output.replace("a analyse", "an analyse")
    assert story.ledger.study_instances(STUDY)


def test_a_study_that_is_done_needs_no_reason_but_a_yes(site: Path, story: Story, sent: Path) -> None:
    story.receive(study=STUDY, disposition=Disposition.PRIOR)
    assert run(site, STUDY).exit_code == 2  # nobody is there to ask
    assert run(site, STUDY, "--yes").exit_code == 0
    unknown = run(site, STUDY, "--yes")
    assert unknown.exit_code == 1
    assert "does not know that study" in unknown.output


def test_a_copy_of_the_ledger_that_still_names_it_is_told(site: Path, settings: Settings, story: Story) -> None:
    story.receive(study=STUDY, disposition=Disposition.PRIOR)
    backups = settings.node.state_dir / "backups"
    backups.mkdir()
    (backups / "old.sqlite").write_bytes(STUDY.encode())
    assert "old.sqlitestillnames" in "".join(run(site, STUDY, "--yes").output.split())  # wrapped, wherever it is
