"""What a person withdraws or lets the models look at again, and what is held: asked for first, and shown."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from config import Settings, load_settings
from ledger.completion import Completion
from ledger.ledger import Ledger
from ledger.records import Stage
from node.cli import app
from node.web.app import make_app
from sr_writer.words import reason_of
from tests.support.asgi import Client
from tests.support.ledger_story import BERTA, LOW, STUDY, Story
from tests.support.records import judged, received

MODEL = "chest-pneumonia"


def run(site: Path, *words: str, **options: str) -> Result:
    return CliRunner().invoke(app, [*words, "-c", str(site)], **options)  # type: ignore[arg-type]


def drift(settings: Settings, ledger: Ledger) -> str:
    page = Client(make_app(settings, ledger)).get("/metrics").text
    return next(line for line in page.splitlines() if line.startswith("opentriage_instances_drift "))


def test_a_recall_says_how_many_studies_and_which(site: Path, story: Story) -> None:
    for study in ("1.1", "1.2"):
        story.reported(judged(LOW, 0.1), study=study)
    refused = run(site, "recall", "--model", MODEL, "--reason", "It was wrong.")
    assert refused.exit_code == 2  # nobody is there to ask
    assert "2 studies would be withdrawn" in refused.output
    assert "1.1" in refused.output
    assert not story.claimable(Stage.REPORT)
    done = run(site, "recall", "--model", f"{MODEL}@1.0.0", "--reason", "It was\n wrong.", "--yes")
    assert done.exit_code == 0
    findings = story.final()
    assert findings is not None
    assert findings.cause == "It was wrong."
    story.final()
    again = run(site, "recall", "--model", MODEL, "--reason", "It was wrong.", "--yes")
    assert again.exit_code == 1


def test_one_study_is_recalled_and_looked_at_again(site: Path, story: Story) -> None:
    story.reported(judged(LOW, 0.1))
    assert run(site, "recall", "--study", STUDY, "--reason", "Wrong.", "--yes").exit_code == 0
    story.final()
    assert "the report was withdrawn" in Client(make_app(load_settings(site), story.ledger)).get("/").text
    assert "1 image is queued" in run(site, "look-again", STUDY).output
    assert run(site, "look-again", "9.9.9").exit_code == 1


@pytest.mark.parametrize(
    "words",
    [
        ["--reason", "x", "--yes"],
        ["--reason", "x", "--study", STUDY, "--model", MODEL],
        ["--reason", "  ", "--study", STUDY],
        ["--reason", "x", "--model", "@1.0.0"],
        ["--reason", "x", "--model", f"{MODEL}@"],
        ["--study", STUDY],
    ],
)
def test_a_recall_that_is_not_meant_is_a_usage_error(site: Path, story: Story, words: list[str]) -> None:
    story.reported(judged(LOW, 0.1))
    assert run(site, "recall", *words).exit_code == 2
    assert not story.claimable(Stage.REPORT)


@pytest.mark.parametrize(
    ("reason", "word"), [("All were normal.", "normal"), ("Not Normally seen", "Normally"), ("Priority LOW", "LOW")]
)
@pytest.mark.parametrize("command", [["recall", "--study", STUDY, "--yes"], ["look-again", STUDY]])
def test_a_reason_that_the_report_would_not_give_is_refused_with_its_word(
    site: Path, story: Story, command: list[str], reason: str, word: str
) -> None:
    story.reported(judged(LOW, 0.1))
    refused = run(site, *command, "--reason", reason)
    assert refused.exit_code == 2
    assert f"'{word}'" in refused.output
    assert 'Write "unflagged"' in refused.output
    assert not story.claimable(Stage.REPORT)
    assert not story.claimable(Stage.ANALYSE)


def test_a_reason_in_plain_english_stands_in_the_report(site: Path, story: Story) -> None:
    story.reported(judged(LOW, 0.1))
    reason = "The operating point was set too low at this site."
    assert run(site, "recall", "--study", STUDY, "--reason", reason, "--yes").exit_code == 0
    findings = story.final()
    assert findings is not None
    assert reason_of(findings.cause) == reason.rstrip(".")


def test_a_held_study_is_shown_as_held_everywhere(site: Path, settings: Settings, story: Story) -> None:
    story.receive()
    story.receive(patient=BERTA)
    assert "HELD: Images of this study name different patients" in run(site, "explain", STUDY).output
    assert "HELD" in run(site, "worklist").output
    assert "different patients" in json.loads(run(site, "worklist", "--json").output)["hold"]
    client = Client(make_app(settings, story.ledger))
    assert "HELD" in client.get("/").text
    assert "opentriage_studies_held 1.0" in client.get("/metrics").text


def test_nothing_received_is_forgotten_whatever_is_rejected_or_looked_at_again(
    settings: Settings, story: Story
) -> None:
    story.reported(judged(LOW, 0.1))
    story.ledger.look_again(STUDY, "To be sure.")
    rejected = received(STUDY)
    story.note("113037", rejected)
    story.ledger.admit(rejected, Completion(0.01))
    assert drift(settings, story.ledger).endswith(" 0.0")
    story.look(judged(LOW, 0.1))
    assert drift(settings, story.ledger).endswith(" 0.0")
