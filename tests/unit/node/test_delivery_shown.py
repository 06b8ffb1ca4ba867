"""Where a report stands, in the same words on the page, in the terminal and in the metrics."""

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from config import Settings, load_settings
from ledger.completion import Completion
from ledger.delivery_records import DeliveryOutcome, DeliveryState, Proof, ProofOutcome
from ledger.ledger import Ledger
from ledger.records import Job, Stage, TriagePriority
from node.cli import app
from node.telling.triage_list import delivery_words
from node.web.app import make_app
from node.wiring import open_ledger
from tests.support.asgi import Client
from tests.support.asked import report
from tests.support.ledgers import all_to
from tests.support.records import judged, received, stored_object

STUDY = "1.2.3"
CONTEXT = "Enhanced SR Storage, Explicit VR Little Endian"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    path = tmp_path / "site.toml"
    path.write_text(
        f'[node]\nstate_dir = "{tmp_path}"\n[[destinations]]\nname = "pacs"\nae_title = "PACS"\nhost = "h"\nport = 1\n'
    )
    return load_settings(path)


@pytest.fixture
def ledger(settings: Settings) -> Iterator[Ledger]:
    opened = open_ledger(settings)
    report(opened, "pacs", STUDY, [stored_object(opened.store), stored_object(opened.store)])
    yield opened
    opened.close()


def _answer(ledger: Ledger, state: DeliveryState, status: int | None, context: str = CONTEXT) -> Job:
    """The PACS says the same to both objects."""
    [job] = ledger.claim(Stage.DELIVER, "test", 1, 60)
    for item in ledger.undelivered(job):
        ledger.record_delivery(job, DeliveryOutcome(item.object_id, state, status, "", context))
    return job


def _proven(ledger: Ledger, *proofs: Proof) -> None:
    ledger.finish_delivery(_answer(ledger, DeliveryState.DELIVERED, 0), 0.0)
    [job] = ledger.claim(Stage.PROVE, "test", 1, 60)
    for item, proof in zip(ledger.unproven(job), proofs, strict=False):
        ledger.record_proof(job, ProofOutcome(item.object_id, proof, f"It is {proof}."))


def _words(ledger: Ledger) -> str:
    [entry] = ledger.worklist()
    return delivery_words(entry)


def test_before_an_answer_a_report_waits(ledger: Ledger) -> None:
    assert _words(ledger) == "pacs waiting"


def test_what_a_destination_refuses_is_refused(ledger: Ledger) -> None:
    ledger.park_delivery(_answer(ledger, DeliveryState.REFUSED, 0x0122), "No.")
    assert _words(ledger) == "pacs refused"


def test_what_we_stopped_ourselves_is_never_shown_as_the_destinations_refusal(
    settings: Settings, ledger: Ledger
) -> None:
    ledger.park_delivery(_answer(ledger, DeliveryState.STOPPED, None, ""), "Its bytes changed.")
    assert _words(ledger) == "pacs stopped here"
    client = Client(make_app(settings, ledger))
    page = client.get("/").text
    assert 'class="sent stopped-here"' in page
    assert 'opentriage_deliveries{destination="pacs",state="stopped"} 2.0' in client.get("/metrics").text
    config = str(settings.node.state_dir / "site.toml")
    done = CliRunner().invoke(app, ["explain", STUDY, "--config", config], env={"COLUMNS": "300"})
    assert "pacs: stopped here, never sent, at" in done.output
    assert "stopped, not sent" in done.output
    assert "refused" not in done.output
    assert "refused" not in page.replace("/healthz", "")


def test_what_we_stopped_comes_before_what_the_destination_refused(ledger: Ledger) -> None:
    [job] = ledger.claim(Stage.DELIVER, "test", 1, 60)
    states = (DeliveryState.REFUSED, DeliveryState.STOPPED)
    for item, state in zip(ledger.undelivered(job), states, strict=True):
        ledger.record_delivery(job, DeliveryOutcome(item.object_id, state, None, ""))
    assert _words(ledger) == "pacs stopped here"


@pytest.mark.parametrize(
    ("proofs", "word"),
    [
        ((), "delivered"),
        ((Proof.COMMITTED,), "delivered"),  # of the other object nothing is known yet
        ((Proof.COMMITTED, Proof.FOUND), "proven"),
        ((Proof.COMMITTED, Proof.UNPROVEN), "unproven"),
        ((Proof.COMMITTED, Proof.MISSING), "sent again"),
    ],
)
def test_the_object_that_is_least_far_says_where_a_report_stands(
    ledger: Ledger, proofs: tuple[Proof, ...], word: str
) -> None:
    _proven(ledger, *proofs)
    assert _words(ledger) == f"pacs {word}"


def test_the_page_shows_it_and_says_what_the_word_means(settings: Settings, ledger: Ledger) -> None:
    _proven(ledger, Proof.COMMITTED, Proof.FOUND)
    text = Client(make_app(settings, ledger)).get("/").text
    assert 'class="sent proven"' in text
    assert "<span>pacs proven</span>" in text
    assert "committed to it or lists it" in text


def test_explain_names_context_status_proof_and_time_of_each_object(settings: Settings, ledger: Ledger) -> None:
    _proven(ledger, Proof.COMMITTED)
    config = str(settings.node.state_dir / "site.toml")
    done = CliRunner().invoke(app, ["explain", STUDY, "--config", config], env={"COLUMNS": "300"})
    first, _ = ledger.study_objects(STUDY)
    text = " ".join(done.output.split())
    assert f"pacs: delivered 0x0000 after 1 try at {first.changed_at.astimezone():%Y-%m-%d}" in text  # type: ignore[union-attr]
    assert f"as {CONTEXT} proof: committed at {first.proven_at.astimezone():%Y-%m-%d}" in text  # type: ignore[union-attr]
    assert "It is committed." in text
    assert "proof: not asked yet, or the answer is still to come" in text


@pytest.fixture
def two_places(settings: Settings) -> Iterator[Ledger]:
    """A picture and a report in three forms, for two destinations; one took a form, the other nothing yet."""
    opened = open_ledger(settings)
    opened.admit(received(STUDY), Completion(0.001))
    [job] = opened.claim(Stage.ANALYSE, "test", 1, 60)
    opened.finish_analysis(job, [judged(TriagePriority.HIGH)])
    [job] = opened.claim(Stage.REPORT, "test", 1, 60)
    made = [(replace(one, choice="report"), path) for one, path in (stored_object(opened.store) for _ in range(3))]
    picture, path = stored_object(opened.store)
    made.append((replace(picture, kind="secondary_capture"), path))
    opened.finish_report(job, opened.study_findings(job), made, all_to(made, ["west", "east"]), ["ris"])
    [west] = opened.claim(Stage.DELIVER, "test", 1, 60, "west")
    first, _, _, shot = opened.undelivered(west)
    opened.record_delivery(west, DeliveryOutcome(first.object_id, DeliveryState.DELIVERED, 0, "", CONTEXT))
    opened.record_delivery(west, DeliveryOutcome(shot.object_id, DeliveryState.STOPPED, None, "Its bytes changed."))
    yield opened
    opened.close()


def test_the_page_shows_each_object_at_each_destination_in_one_order(settings: Settings, two_places: Ledger) -> None:
    client = Client(make_app(settings, two_places))
    page = client.get("/").text
    row = " ".join(re.sub("<[^>]*>", " ", page[page.index("<details") : page.index("</details>")]).split())
    assert row == (
        "each object keep open provisional report: text report east waiting west delivered "
        "provisional report: picture east waiting west stopped here provisional report ris waiting"
    )
    assert 'title="west: Its bytes changed."' in page
    details = f'<details class="each" data-keep="each-{STUDY}"'
    assert f"{details}>" in page  # closed, until a person asks for it
    opened = client.get(f"/?open={STUDY}").text  # where it stays open while the page renews itself without a script
    assert f"{details} open>" in opened
    assert client.get("/?open=%3Cb%3E").text.count("<b>") == page.count("<b>")
    summary = page[page.rindex("<td", 0, page.index("<details")) : page.index("<details")]
    assert summary.index("east waiting") < summary.index("west stopped here")


def test_explain_names_each_object_once_and_its_needless_forms_in_one_line(
    settings: Settings, two_places: Ledger
) -> None:
    config = str(settings.node.state_dir / "site.toml")
    done = CliRunner().invoke(app, ["explain", STUDY, "--config", config], env={"COLUMNS": "300"})
    told = done.output[done.output.index("Reports") :].splitlines()
    assert told[1].startswith("provisional report: text report 2.25.")
    assert told[2] == "    east: waiting, no answer yet"
    assert told[3].startswith("    west: delivered 0x0000 after 1 try at")
    assert told[4] == "    proof: not asked yet, or the answer is still to come"
    assert told[5] == "    west: not needed in 2 other forms"
    assert told[6].startswith("provisional report: picture 2.25.")
    assert told[8].startswith("    west: stopped here")


def test_the_story_names_the_object_that_was_proven_and_no_question_that_was_never_asked(ledger: Ledger) -> None:
    ledger.finish_delivery(_answer(ledger, DeliveryState.DELIVERED, 0), 0.0)
    [job] = ledger.claim(Stage.PROVE, "test", 1, 60)
    first, second = ledger.unproven(job)
    for transaction in ("2.25.1", "2.25.2"):
        ledger.commitment_asked("pacs", transaction, [(job, [first.sop_instance_uid, second.sop_instance_uid])])
    assert not any(event.name == "commitment_asked" for event in ledger.events(STUDY))  # it does not offer to be asked
    ledger.commitment_accepted("2.25.2")
    for item, proof in zip((first, second), (Proof.COMMITTED, Proof.UNPROVEN), strict=True):
        ledger.record_proof(job, ProofOutcome(item.object_id, proof, f"It is {proof}."))
    told = {event.name: event.text for event in ledger.events(STUDY)}
    assert told["commitment_asked"] == "pacs was asked to commit 2 objects."
    assert told["proof_unproven"] == "pacs: text_sr unproven: It is unproven."


def test_the_metrics_count_proofs_and_unanswered_requests(settings: Settings, ledger: Ledger) -> None:
    _proven(ledger, Proof.COMMITTED)
    ledger.commitment_asked("pacs", "2.25.1", [])
    ledger.commitment_accepted("2.25.1")
    lines = Client(make_app(settings, ledger)).get("/metrics").text.splitlines()
    assert 'opentriage_proofs{destination="pacs",proof="committed"} 1.0' in lines
    assert 'opentriage_proofs{destination="pacs",proof="waiting"} 1.0' in lines
    assert 'opentriage_commitments_unanswered{destination="pacs"} 1.0' in lines
