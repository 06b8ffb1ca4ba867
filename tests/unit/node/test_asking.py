"""Asking creates nothing, and says in a sentence why there is nobody to ask."""

import json
import re
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from config import load_settings
from config.settings import NodeSettings, Settings
from ledger.records import DeliveryOutcome, DeliveryState, Stage, TriagePriority
from node.cli import app
from node.wiring import NoLedger, open_ledger
from tests.support import ledgers
from tests.support.records import judged, stored_object


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
