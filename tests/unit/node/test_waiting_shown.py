"""How long a study waits, as the list says it: since its last image that was new."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from ledger.completion import Completion
from ledger.ledger import Ledger
from ledger.records import Disposition
from node.telling.triage_list import sent_after_s, still_waits
from tests.support.ledgers import open_fresh
from tests.support.records import received

NOW = datetime.now(UTC)
CAME = NOW - timedelta(minutes=20)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    opened = open_fresh(tmp_path)
    yield opened
    opened.close()


def test_the_same_bytes_again_do_not_begin_the_waiting_anew(ledger: Ledger) -> None:
    first = received(received_at=CAME)
    ledger.admit(first, Completion(20))
    ledger.admit(replace(first, path="instances/ee/again.dcm", received_at=NOW), Completion(20))
    assert ledger.worklist()[0].last_image_at == CAME


def test_another_image_or_other_bytes_do(ledger: Ledger) -> None:
    first = received(received_at=CAME)
    ledger.admit(first, Completion(20))
    between = NOW - timedelta(minutes=5)
    other = replace(first, sha256="e" * 64, path="instances/ee/other.dcm", received_at=between)
    ledger.admit(other, Completion(20))
    assert ledger.worklist()[0].last_image_at == between
    ledger.admit(received(sop_instance_uid="1.2.9", sha256="f" * 64, received_at=NOW), Completion(20))
    ours = received(sop_instance_uid="1.2.10", sha256="d" * 64, received_at=NOW + timedelta(hours=1))
    ledger.admit(replace(ours, disposition=Disposition.OWN_RESULT), Completion(20))
    assert ledger.worklist()[0].last_image_at == NOW


def test_what_was_sent_before_the_last_image_came_was_not_sent_after_it(ledger: Ledger) -> None:
    ledger.admit(received(received_at=CAME), Completion(20))
    [entry] = ledger.worklist()
    assert sent_after_s(entry) is None
    assert still_waits(entry)
    sent = replace(entry, pending=0, is_complete=True, deliveries=(("pacs", "delivered"),))
    assert sent_after_s(replace(sent, delivered_at=CAME + timedelta(seconds=3))) == 3.0
    assert sent_after_s(replace(sent, delivered_at=CAME - timedelta(seconds=3))) is None
    assert not still_waits(replace(sent, delivered_at=CAME))
    assert still_waits(replace(sent, delivered_at=None))
    assert still_waits(replace(sent, delivered_at=CAME - timedelta(seconds=3), pending=1))


def test_nothing_is_waited_for_in_a_prior_study_or_in_shadow_mode(ledger: Ledger) -> None:
    ledger.admit(received(received_at=CAME), Completion(20))
    [entry] = ledger.worklist()
    assert not still_waits(replace(entry, is_prior=True))
    made = replace(entry, pending=0, is_complete=True, deliveries=(("pacs", "shadow"),), is_shadow=True)
    assert not still_waits(made)
