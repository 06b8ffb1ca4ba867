"""What a person is told of one that calls: where images are lost that never arrive, and what to do about it."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from config import load_settings
from ledger import assembly
from ledger.completion import Completion
from ledger.database import transaction
from ledger.ledger import Ledger
from ledger.peers import ASSOCIATION, IN_ALL, INSTANCE, OTHERS, PEERS_MAX, Observed
from node.cli import app
from node.telling import turned_away
from node.watching.metrics import make_registry
from node.wiring import open_ledger
from scp.callers.refused import INVALID
from scp.network.policy import Refusal
from scp.status import PROCESSING_FAILURE, STATUS_OF
from tests.support.records import received

CT, MWL = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.31"
PRIVATE, PRIVATE_SYNTAX = "1.3.12.2.1107.5.9.1", "1.2.840.113619.5.2"
DEFLATED, BIG_ENDIAN, EXPLICIT_LITTLE = "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1"
COMMITMENT = "1.2.840.10008.1.20.1"
Fill = Callable[[Ledger], object]


def config(folder: Path, receive: str = "") -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / "site.toml"
    path.write_text(f'[node]\nstate_dir = "{folder}"\n[receive]\n{receive}\n')
    return path


def explained(folder: Path, fill: Fill, *arguments: str, receive: str = "") -> Result:
    path = config(folder, receive)
    ledger = open_ledger(load_settings(path))
    fill(ledger)
    ledger.close()
    return CliRunner().invoke(app, ["explain", *arguments, "-c", str(path)], env={"COLUMNS": "300"})


def refused(*kinds: tuple[str, str, str]) -> Fill:
    return lambda ledger: ledger.observe({"CT1": Observed(12, 3400, refused=dict.fromkeys(kinds, 7))})


def test_a_sender_is_explained(tmp_path: Path) -> None:
    told = explained(tmp_path, refused((PRIVATE, EXPLICIT_LITTLE, "abstract_syntax")), "--peer", "CT1")
    assert told.exit_code == 0
    assert "12 associations accepted, 3,400 instances received; first seen 20" in told.output
    assert re.search(rf"{PRIVATE} as Explicit VR Little Endian: 7 times, first 20.*, last 20", told.output)
    assert f'add "{PRIVATE}" to receive.private_sop_classes' in told.output
    assert "No image came for 20 s: how CT1 sends is not known yet." in told.output
    assert "0 of 50 that ended a study's images were seen" in told.output


@pytest.mark.parametrize(
    ("kind", "receive", "said"),
    [
        ((CT, DEFLATED, "transfer_syntax"), "", "CT Image Storage as Deflated Explicit VR Little Endian: 7 times"),
        (
            (CT, DEFLATED, "transfer_syntax"),
            "",
            "Set receive.accept_deflated = true; or in the caller's export settings",
        ),
        ((CT, BIG_ENDIAN, "transfer_syntax"), "", "Set receive.accept_big_endian = true"),
        ((CT, BIG_ENDIAN, "transfer_syntax"), "accept_big_endian = true", "takes it by now"),
        ((CT, PRIVATE_SYNTAX, "transfer_syntax"), "", "choose Explicit VR Little Endian"),
        ((PRIVATE, EXPLICIT_LITTLE, "abstract_syntax"), f'private_sop_classes = ["{PRIVATE}"]', "takes it by now"),
        ((MWL, EXPLICIT_LITTLE, "abstract_syntax"), "", "no image is lost by it"),
        ((COMMITMENT, EXPLICIT_LITTLE, "abstract_syntax"), "", "only for senders in [[commitment_requestors]]"),
        ((CT, EXPLICIT_LITTLE, "abstract_syntax"), 'allowed_calling_ae_titles = ["MR1"]', "may not store here"),
        ((INVALID, EXPLICIT_LITTLE, "abstract_syntax"), "", "a fault of its software"),
        ((OTHERS, "", "abstract_syntax"), "", "(others): 7 times"),
    ],
)
def test_each_refusal_says_what_to_do(tmp_path: Path, kind: tuple[str, str, str], receive: str, said: str) -> None:
    assert said in explained(tmp_path, refused(kind), "--peer", "CT1", receive=receive).output


@pytest.mark.parametrize(
    ("kind", "receive", "said"),
    [
        ((ASSOCIATION, "TRIAGE", "called_ae_title"), "", 'It called "TRIAGE"; this node is "OPENTRIAGE": put that'),
        ((ASSOCIATION, "TRIAGE", "called_ae_title"), 'ae_title = "TRIAGE"', "nothing is to be done"),
        ((ASSOCIATION, "", "calling_ae_title"), 'allowed_calling_ae_titles = ["MR1"]', 'add "CT1" to receive.allowed'),
        ((ASSOCIATION, "", "calling_ae_title"), "", "nothing is to be done"),
        ((ASSOCIATION, "", "local_limit"), "", "raise receive.max_associations or receive.max_associations_per_ae"),
        ((ASSOCIATION, "", "temporary_congestion"), "", "look for volume_failed in the log"),
        ((INSTANCE, "", "0xA700"), "", "has to send them again"),
        ((INSTANCE, "", "0xA900"), "", "a fault of the sender's software"),
        ((INSTANCE, "", "0xC000"), "", "It is in quarantine"),
    ],
)
def test_each_rejection_says_what_to_do(tmp_path: Path, kind: tuple[str, str, str], receive: str, said: str) -> None:
    told = explained(tmp_path, refused(kind), "--peer", "CT1", receive=receive).output
    assert said in told
    assert ("Rejected associations" in told) is (kind[0] == ASSOCIATION)
    assert re.search(r": 7 times, first 20.*, last 20", told)
    assert "None: whatever it proposed, it got." in told  # of presentation contexts


def test_who_took_the_name_of_a_sender_by_stow_is_told_what_it_stands_for(tmp_path: Path) -> None:
    def called(ledger: Ledger) -> None:
        ledger.observe({"STOW:anna": Observed(0, refused={(ASSOCIATION, "", "calling_ae_title"): 1})})

    assert "give the sender another AE title" in explained(tmp_path, called, "--peer", "STOW:anna").output


def test_every_refusal_and_status_has_its_sentence() -> None:
    said = {f"0x{status:04X}" for status in STATUS_OF.values()} | {f"0x{PROCESSING_FAILURE:04X}"}
    assert set(turned_away._REFUSED) == said
    titles = {"calling_ae_title", "called_ae_title"}
    assert {*turned_away._REJECTED, *titles} == {one.name.lower() for one in Refusal}


def test_a_sender_that_got_all_it_asked_for(tmp_path: Path) -> None:
    told = explained(tmp_path, refused(), "--peer", " CT1 ")
    assert "None: whatever it proposed, it got." in told.output


def test_how_a_sender_sends_is_told(tmp_path: Path) -> None:
    gaps = {(False, 20): 200, (False, IN_ALL): 100, (True, IN_ALL): 100}
    told = explained(tmp_path, lambda ledger: ledger.observe({"CT1": Observed(100, 300, gaps)}), "--peer", "CT1")
    assert "nobody is waited for less long" in told.output
    assert "CT1 released the association of the newest image and sent no other for 3 s" in told.output
    often = gaps | {(True, 30): 50}
    told = explained(tmp_path / "2", lambda ledger: ledger.observe({"CT1": Observed(gaps=often)}), "--peer", "CT1")
    assert "too often it sends the rest of a study on another" in told.output


def test_one_that_has_never_called_is_told_apart_from_those_that_have(tmp_path: Path) -> None:
    told = explained(tmp_path, refused(), "--peer", "CT2")
    assert told.exit_code == 1
    assert "no 'CT2' has called this node; those that have: CT1" in told.stderr
    nobody = explained(tmp_path / "2", lambda ledger: None, "--peer", "CT2")
    assert "no 'CT2' has called this node; nobody has" in nobody.stderr


@pytest.mark.parametrize("arguments", [(), ("1.2.3", "--peer", "CT1")])
def test_explain_wants_a_study_or_a_sender(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    told = CliRunner().invoke(app, ["explain", *arguments, "-c", str(config(tmp_path))])
    assert told.exit_code == 2
    assert "name a study by its Study Instance UID, or a sender with --peer" in told.stderr


def test_a_study_that_waits_says_for_what(tmp_path: Path) -> None:
    def fill(ledger: Ledger) -> None:
        instance = received("1.2.3", calling_ae_title="CT1")
        ledger.admit(instance, Completion(60.0, 900.0, "No image came for 60 s."))
        with transaction(ledger._engine, write=True) as connection:
            assembly.stated(connection, "CT1", [instance.sop_instance_uid, "1.9.1", "1.9.2"])

    told = explained(tmp_path, fill, "1.2.3")
    assert "Not complete yet" in told.output
    assert "CT1 asked to commit 3 instances: 2 of them are missing." in told.output
    assert "If nothing more comes it is taken as complete at 20" in told.output


def contexts_refused(tmp_path: Path, strangers: int) -> dict[str, float]:
    """By label. CT1 stores here, MR1 is named by the settings, the strangers got nothing."""
    settings = load_settings(config(tmp_path, 'allowed_calling_ae_titles = ["MR1", "CT1"]'))
    ledger = open_ledger(settings)
    one = {(PRIVATE, EXPLICIT_LITTLE, "abstract_syntax"): 2}
    seen = {f"X{number}": Observed(1, 0, refused=dict(one)) for number in range(strangers)}
    ledger.observe({"CT1": Observed(1, 5, refused=dict(one)), "MR1": Observed(1, 0, refused=dict(one)), **seen})
    registry = make_registry(settings, ledger)
    [family] = [one for one in registry.collect() if one.name == "opentriage_contexts_refused"]
    ledger.close()
    assert {sample.labels["reason"] for sample in family.samples} == {"abstract_syntax"}
    return {sample.labels["calling_ae_title"]: sample.value for sample in family.samples}


def test_metrics_name_a_caller_that_got_nothing_and_so_never_stored(tmp_path: Path) -> None:
    assert contexts_refused(tmp_path, 2) == {"CT1": 2.0, "MR1": 2.0, "X0": 2.0, "X1": 2.0}


def test_invented_callers_are_no_labels_without_end(tmp_path: Path) -> None:
    assert contexts_refused(tmp_path, PEERS_MAX - 2) == {"CT1": 2.0, "MR1": 2.0, "other": 2.0 * (PEERS_MAX - 2)}
