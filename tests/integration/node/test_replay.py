"""Stored studies decided anew: every change is listed with its image, and nothing kept changes."""

import csv
import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import select, update
from typer.testing import CliRunner, Result

from config import Settings, load_settings
from inference.analyser import Analyser, Source
from inference.package import load_packages
from ledger.completion import Completion
from ledger.database import transaction
from ledger.ledger import Ledger
from ledger.records import Disposition
from ledger.tables import instances, metadata
from node.cli import app
from node.wiring import open_ledger
from tests.support.chests import bright, dark, save
from tests.support.ledger_story import HOUR_S, Story
from tests.support.packages import label, tiny_model, write_package
from tests.support.records import received

BRIGHT, DARK, GONE = "1.2.1", "1.2.2", "1.2.3"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A node that has looked at three studies."""
    folder = tmp_path_factory.mktemp("site")
    write_package(folder / "models")
    write_package(folder / "models", "other", reads={"body_parts": ["HAND"]})
    path = folder / "site.toml"
    path.write_text(f'[node]\nstate_dir = "{folder / "state"}"\n[look]\nmodels_dir = "{folder / "models"}"\n')
    settings = load_settings(path)
    ledger = open_ledger(settings)
    analyser = Analyser(settings, load_packages(settings.look), ledger.store)
    for study, picture in ((BRIGHT, bright), (DARK, dark), (GONE, dark)):
        file = save(picture(StudyInstanceUID=study), folder / "sent")
        _look(ledger, analyser, study, file)
    with transaction(ledger._engine, write=True) as connection:
        connection.execute(update(instances).where(instances.c.study_uid == GONE).values(removed_at=1.0))
    analyser.close()
    ledger.close()
    return path


def _look(ledger: Ledger, analyser: Analyser, study: str, file: Path) -> None:
    content = file.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    stored = ledger.store.put("instances", digest, ".dcm", content)
    ledger.admit(received(study, sop_instance_uid=file.stem, sha256=digest, path=stored), Completion(HOUR_S))
    [job] = ledger.claim("analyse", "test", 1, 60.0)  # type: ignore[arg-type]
    [looked] = analyser.analyse([Source(ledger.store.path(stored))])
    ledger.finish_analysis(job, looked.results)


@pytest.fixture
def settings(site: Path) -> Settings:
    return load_settings(site)


@pytest.fixture
def ledger(settings: Settings) -> Iterator[Ledger]:
    opened = open_ledger(settings)
    yield opened
    opened.close()


def run(site: Path, *words: str) -> Result:
    return CliRunner().invoke(app, ["replay", *words, "-c", str(site)])


def everything(ledger: Ledger) -> tuple[list[str], list[str]]:
    """Every row, and every file of the store."""
    with transaction(ledger._engine, write=False) as connection:
        rows = [str(row) for table in metadata.sorted_tables for row in connection.execute(select(table))]
    return rows, sorted(str(path) for path in ledger.store.root.rglob("*") if path.is_file())


def test_a_package_that_flags_more_raises_and_one_that_flags_less_lowers(
    site: Path, settings: Settings, ledger: Ledger, tmp_path: Path
) -> None:
    before = everything(ledger)
    eager = write_package(tmp_path / "b", version="2.0.0", model=tiny_model(1, offset=20.0))
    assert run(site, "--model", str(eager), "--out", str(tmp_path / "up")).exit_code == 0
    found = json.loads((tmp_path / "up" / "replay.json").read_text())
    assert (found["replayed"], found["more_urgent"], found["less_urgent"]) == (2, 1, 0)
    assert found["not_replayed"] == {"its images were removed": 1}
    assert [one["study_instance_uid"] for one in found["changed"]] == [DARK]
    assert 'class="rises"' in (tmp_path / "up" / "replay.html").read_text()
    shy = write_package(tmp_path / "c", version="0.9.0", model=tiny_model(1, offset=-20.0))
    done = run(site, "--model", str(shy), "--out", str(tmp_path / "down"))
    assert "HIGH -> unflagged" in done.output
    page = (tmp_path / "down" / "replay.html").read_text()
    assert BRIGHT in page
    assert 'class="falls"' in page
    assert DARK not in page
    assert "data:image/jpeg;base64," in page  # the picture that the node has kept
    assert "LOW" not in page
    assert "http" not in page.replace('charset="utf-8"', "")  # it needs nothing else
    [row] = csv.DictReader((tmp_path / "down" / "replay.csv").read_text().splitlines())
    assert (row["before"], row["after"]) == ("HIGH", "unflagged")
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "down").iterdir()} == {0o600}
    assert everything(ledger) == before


def test_other_thresholds_decide_anew_with_every_package(site: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.toml"
    other.write_text(site.read_text() + "[decide.thresholds]\npneumonia = 1.0\n[decide]\ndoubt_margin = 0.0\n")
    assert run(site, "--settings", str(other), "--out", str(tmp_path / "out")).exit_code == 0
    found = json.loads((tmp_path / "out" / "replay.json").read_text())
    assert [(one["study_instance_uid"], one["before"]) for one in found["changed"]] == [(BRIGHT, "HIGH")]


def test_without_a_folder_it_makes_one_of_its_own_and_says_where(
    site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = run(site, "--settings", str(site), "--since", "30d")
    assert done.exit_code == 0, done.output
    [made] = tmp_path.iterdir()
    assert re.fullmatch(r"opentriage-replay-\d{8}-\d{6}", made.name)
    assert f"wrote {made.name}/replay.html" in done.output
    assert {path.stat().st_mode & 0o777 for path in made.iterdir()} == {0o600}


def test_what_another_package_said_stands(site: Path, tmp_path: Path) -> None:
    """A package of another name adds its word, unless it is to take another's place."""
    shy = write_package(tmp_path / "d", "newcomer", model=tiny_model(1, offset=-20.0))
    run(site, "--model", str(shy), "--out", str(tmp_path / "adds"))
    assert json.loads((tmp_path / "adds" / "replay.json").read_text())["changed"] == []
    run(site, "--model", str(shy), "--instead-of", "tiny-chest", "--out", str(tmp_path / "replaces"))
    assert json.loads((tmp_path / "replaces" / "replay.json").read_text())["less_urgent"] == 1


def test_only_what_came_since_then_and_what_was_to_be_triaged(site: Path, ledger: Ledger, tmp_path: Path) -> None:
    Story(ledger).receive(study="1.2.9", disposition=Disposition.PRIOR)
    labels = [label(threshold=0.6)]
    package = write_package(tmp_path / "e", version="3.0.0", labels=labels)
    assert run(site, "--model", str(package), "--since", "0h", "--out", str(tmp_path / "none")).exit_code == 0
    assert json.loads((tmp_path / "none" / "replay.json").read_text())["replayed"] == 0
    assert run(site, "--model", str(package), "--since", "soon", "--out", str(tmp_path / "x")).exit_code == 2
    assert run(site, "--out", str(tmp_path / "x")).exit_code == 2
