"""Where a report stands, in the same words on the page, in the terminal and in the metrics."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from config import Settings, load_settings
from ledger.ledger import Ledger
from ledger.records import DeliveryOutcome, DeliveryState, Job, Proof, ProofOutcome, Stage
from node.cli import app
from node.triage_list import delivery_words
from node.web import make_app
from node.wiring import open_ledger
from tests.support.asgi import Client
from tests.support.asked import report
from tests.support.records import stored_object

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
    assert ">pacs proven</span>" in text
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


def test_the_metrics_count_proofs_and_unanswered_requests(settings: Settings, ledger: Ledger) -> None:
    _proven(ledger, Proof.COMMITTED)
    ledger.commitment_asked("pacs", "2.25.1", [])
    ledger.commitment_accepted("2.25.1")
    lines = Client(make_app(settings, ledger)).get("/metrics").text.splitlines()
    assert 'opentriage_proofs{destination="pacs",proof="committed"} 1.0' in lines
    assert 'opentriage_proofs{destination="pacs",proof="waiting"} 1.0' in lines
    assert 'opentriage_commitments_unanswered{destination="pacs"} 1.0' in lines
