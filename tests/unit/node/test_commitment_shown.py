"""A site is told what it promised to senders, and when one of them could not be told."""

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from config import Settings
from ledger import commitment_requests
from ledger.commitment_results import CommitmentRequest, Listed
from ledger.ledger import Ledger
from node.cli import app
from node.commands.commitment_warnings import commitment_warnings
from node.roles.commit import park_unnamed
from node.watching.health import HealthCheck
from node.watching.metrics import make_registry, render
from tests.support.ledgers import admit, open_fresh

CT1 = {"ae_title": "CT1", "host": "10.1.2.7", "port": 104, "retention_days": 30}


def settings(folder: Path, *requestors: dict[str, Any], **receive: Any) -> Settings:
    return Settings.model_validate(
        {"node": {"state_dir": folder}, "commitment_requestors": requestors, "receive": receive}
    )


def test_nobody_is_promised_anything_by_default(tmp_path: Path) -> None:
    assert Settings().commitment_requestors == ()
    assert list(commitment_warnings(settings(tmp_path, free_disk_min_bytes=0))) == []


def test_a_sender_that_may_delete_on_our_word_is_warned_of_with_the_time(tmp_path: Path) -> None:
    [said] = commitment_warnings(settings(tmp_path, CT1), tmp_path / "no mounts")
    assert said.startswith("commitment_requestors: CT1@10.1.2.7:104: this sender may delete its images on our word")
    assert "for 30 days" in said
    [_, out] = commitment_warnings(settings(tmp_path, CT1, allowed_calling_ae_titles=["CT2"]), tmp_path / "no mounts")
    assert "leaves it out" in out


def test_what_makes_the_promise_doubtful_is_warned_of(tmp_path: Path) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text(f"/dev/sda / ext4 rw 0 0\nshm {tmp_path} tmpfs rw 0 0\n/dev/sdb /data xfs rw 0 0\n")
    [_, full, memory] = commitment_warnings(settings(tmp_path / "state", CT1, free_disk_min_bytes=0), mounts)
    assert full.startswith("receive.free_disk_min_bytes: 0")
    assert "lies on memory" in memory
    mounts.write_text("/dev/sda / ext4 rw 0 0\n")
    assert len(list(commitment_warnings(settings(tmp_path, CT1), mounts))) == 1


@pytest.fixture
def ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ledger:
    """CT1 asked, and was not told within a day."""
    monkeypatch.setattr(commitment_requests, "GIVE_UP_S", 0.0)
    ledger = open_fresh(tmp_path)
    key = ledger.commitment_requested(CommitmentRequest("CT1", "2.25.1", (Listed("1.2", "1.2.3"),)), 0.0)
    held = ledger.claim_this_commitment(key, "test", 60.0)
    assert held is not None
    assert ledger.put_off_commitment(held, "no connection")
    ledger.commitment_requested(CommitmentRequest("CT1", "2.25.2", (Listed("1.2", "1.2.3"),)), 0.0)
    return ledger


def test_a_request_that_was_given_up_raises_an_alarm_and_is_counted(ledger: Ledger, tmp_path: Path) -> None:
    site = settings(tmp_path, CT1)
    [alarm] = HealthCheck(site, ledger).check().alarms
    assert "CT1 was never answered, in the last seven days: 1;" in alarm
    page = render(make_registry(site, ledger)).decode()
    for state in ("parked", "waiting"):
        assert f'opentriage_commitment_requests{{requestor="CT1",state="{state}"}} 1.0' in page


def test_what_waits_for_a_sender_that_the_settings_do_not_name_is_given_up(ledger: Ledger, tmp_path: Path) -> None:
    assert park_unnamed(ledger, settings(tmp_path, CT1)) == 0
    assert park_unnamed(ledger, settings(tmp_path)) == 1
    [alarm] = HealthCheck(settings(tmp_path), ledger).check().alarms
    assert "in the last seven days: 2;" in alarm


def test_a_damaged_file_raises_an_alarm_without_its_name_and_explain_says_which(tmp_path: Path) -> None:
    ledger = open_fresh(tmp_path)
    image = admit(ledger, 1)
    listed = Listed(image.sop_class_uid, image.sop_instance_uid)
    key = ledger.commitment_requested(CommitmentRequest("CT1", "2.25.1", (listed,)), 0.0)
    held = ledger.claim_this_commitment(key, "test", 60.0)
    assert held is not None
    ledger.judge_commitment(held, 3600.0)  # bytes of a test are no DICOM file
    [alarm] = HealthCheck(settings(tmp_path, CT1), ledger).check().alarms
    assert "asked whether they are kept: 1;" in alarm
    assert "sent again" in alarm
    assert "2.25" not in alarm
    config = tmp_path / "site.toml"
    config.write_text(f'[node]\nstate_dir = "{tmp_path}"\n')
    told = CliRunner().invoke(app, ["explain", image.study_instance_uid, "-c", str(config)]).output
    assert "DAMAGED or gone; have the image sent again" in told
    assert f"The stored file of {image.sop_instance_uid} is damaged or gone" in told.replace("\n", " ")
