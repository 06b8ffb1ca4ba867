"""Asking creates nothing, and says in a sentence why there is nobody to ask."""

import json
import re
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from config import load_settings
from config.settings import NodeSettings, Settings
from ledger.completion import Completion
from ledger.delivery_records import DeliveryOutcome, DeliveryState
from ledger.records import Stage, TriagePriority
from node.cli import app
from node.wiring import NoLedger, open_ledger
from tests.support import ledgers
from tests.support.records import judged, received, stored_object


def site(folder: Path, url: str = "") -> Path:
    path = folder / "site.toml"
    extra = f"database_url = {json.dumps(url)}\n" if url else ""
    path.write_text(f"[node]\nstate_dir = {json.dumps(str(folder / 'state'))}\n{extra}", encoding="utf-8")
    return path


def explain(config: Path, study_uid: str = "1.2.3") -> Result:
    return CliRunner().invoke(app, ["explain", study_uid, "-c", str(config)])


def one_line(text: str) -> str:
    return " ".join(text.split())


def test_asking_without_a_ledger_says_so_and_makes_none(tmp_path: Path) -> None:
    result = explain(site(tmp_path))
    assert result.exit_code == 1
    said = result.output.replace("\n", "")
    assert "no ledger at" in said
    assert str(tmp_path / "state" / "ledger.sqlite") in said
    assert "--config (or OPENTRIAGE_CONFIG) missing?" in one_line(result.output)
    assert [path.name for path in tmp_path.iterdir()] == ["site.toml"]


def test_a_node_that_starts_still_makes_its_ledger(tmp_path: Path) -> None:
    settings = load_settings(site(tmp_path))
    with pytest.raises(NoLedger):
        open_ledger(settings, must_exist=True)
    open_ledger(settings).close()
    open_ledger(settings, must_exist=True).close()


def test_postgresql_without_its_driver_names_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    url = "postgresql+psycopg://node:secret@db/opentriage"
    result = explain(site(tmp_path, url))
    assert result.exit_code == 1
    assert "pip install --require-hashes -r requirements/postgres.txt" in one_line(result.output)
    assert "secret" not in result.output
    with pytest.raises(NoLedger):
        open_ledger(Settings(node=NodeSettings(state_dir=tmp_path / "state", database_url=url)))


def test_explain_counts_tries_as_people_do_and_claims_no_certainty(tmp_path: Path) -> None:
    config = site(tmp_path)
    ledger = open_ledger(load_settings(config))
    received = ledgers.admit(ledger, complete_after_s=0.001)
    (look,) = ledger.claim(Stage.ANALYSE, "test", 1, 60.0)
    ledger.finish_analysis(look, [judged(TriagePriority.HIGH, 0.9999)])
    (say,) = ledger.claim(Stage.REPORT, "test", 1, 60.0)
    findings = ledger.study_findings(say)
    made = [stored_object(ledger.store)]
    ledger.finish_report(say, findings, made, ledgers.all_to(made, ["PACS@127.0.0.1:104"]))
    before = explain(config, received.study_instance_uid).output
    assert "waiting, no answer yet" in before
    assert "0 tries" not in before
    assert "probability >0.99" in before
    assert "1.000" not in before
    (deliver,) = ledger.claim(Stage.DELIVER, "test", 1, 60.0, "PACS@127.0.0.1:104")
    (made,) = ledger.undelivered(deliver)
    ledger.record_delivery(deliver, DeliveryOutcome(made.object_id, DeliveryState.WAITING, 0xA700, "It is full."))
    ledger.close()
    after = explain(config, received.study_instance_uid).output
    assert re.search(r"waiting 0xA700 after 1 try at [\d :-]+ It is full\.", after)


@pytest.mark.parametrize("command", [["worklist"], ["release"], ["release", "5"], ["explain", "1.2.3"]])
def test_no_question_makes_a_ledger(tmp_path: Path, command: list[str]) -> None:
    result = CliRunner().invoke(app, [*command, "-c", str(site(tmp_path))])
    assert result.exit_code == 1
    assert "no ledger at" in one_line(result.output)
    assert not (tmp_path / "state").exists()


LONG = "1.2.826.0.1.3680043.8.498.2484595566174596232524593044334111527"  # 63 characters


@pytest.fixture
def three(tmp_path: Path) -> Path:
    """Settings of a node that knows three studies, of which two end alike."""
    config = site(tmp_path)
    ledger = open_ledger(load_settings(config))
    for number, study in enumerate((f"{LONG}7", f"{LONG}8", "1.9.115277")):
        ledger.admit(received(study, sop_instance_uid=f"1.2.{number}"), Completion(60.0))
    ledger.close()
    return config


def test_a_study_is_known_by_as_much_of_its_end_as_it_shares_with_no_other(three: Path) -> None:
    said = explain(three, "5278")
    assert said.exit_code == 0, said.output
    assert f"Study {LONG}8\n" in said.output
    both = explain(three, "15277")
    assert both.exit_code == 2
    assert f"{LONG}7" in both.output.splitlines()
    assert "1.9.115277" in both.output.splitlines()
    assert f"{LONG}8" not in both.output
    assert explain(three, "277").exit_code == 1  # so short an end is nobody's name
    assert explain(three, "1.9.115277").exit_code == 0
    again = CliRunner().invoke(app, ["look-again", "5278", "-c", str(three)])
    assert f"study {LONG}8" in again.output
    recall = CliRunner().invoke(app, ["recall", "--study", "15277", "--reason", "Wrong side.", "-c", str(three)])
    assert recall.exit_code == 2


def test_nothing_is_erased_by_the_end_of_a_name_unless_somebody_is_asked(three: Path) -> None:
    result = CliRunner().invoke(app, ["forget", "5278", "--yes", "-c", str(three)])
    assert (result.exit_code, "does not know that study" in one_line(result.output)) == (1, True)
    assert explain(three, f"{LONG}8").exit_code == 0


def test_a_study_that_was_erased_is_not_said_to_have_never_come(three: Path) -> None:
    assert (
        CliRunner().invoke(app, ["forget", "1.9.115277", "--yes", "--even-undelivered", "-c", str(three)]).exit_code
        == 0
    )
    result = explain(three, "1.9.115277")
    assert result.exit_code == 1
    assert "does not know that study: never received, removed after its time, or erased" in one_line(result.output)


def test_a_terminal_of_eighty_columns_shows_a_studys_whole_name_on_one_line(three: Path) -> None:
    narrow = 80 - len("NOT ASSESSED") + len("priority")  # no study here is not assessed
    shown = CliRunner().invoke(app, ["worklist", "-c", str(three)], env={"COLUMNS": str(narrow)})
    assert shown.exit_code == 0, shown.output
    assert sum(line.endswith((f"{LONG}7", f"{LONG}8")) for line in map(str.rstrip, shown.output.splitlines())) == 2
    assert all(len(line) <= 80 for line in shown.output.splitlines())


def test_what_is_still_tried_is_told_with_how_often_and_when_next(tmp_path: Path) -> None:
    config = site(tmp_path)
    ledger = open_ledger(load_settings(config))
    study = ledgers.admit(ledger, complete_after_s=0.001).study_instance_uid
    (look,) = ledger.claim(Stage.ANALYSE, "test", 1, 60.0)
    ledger.finish_analysis(look, [judged(TriagePriority.HIGH, 0.9)])
    (say,) = ledger.claim(Stage.REPORT, "test", 1, 60.0)
    made = [stored_object(ledger.store)]
    ledger.finish_report(say, ledger.study_findings(say), made, ledgers.all_to(made, ["PACS"]))
    for _ in range(3):
        (deliver,) = ledger.claim(Stage.DELIVER, "test", 1, 60.0, "PACS")
        ledger.retry(deliver, "PACS is full.", 0.0)
    ledger.close()
    said = explain(config, study).output
    assert re.search(r"deliver for PACS: 3 tries so far, due again at [\d :-]+: PACS is full\.", said)
    assert said.count("deliver_retry") == 1
