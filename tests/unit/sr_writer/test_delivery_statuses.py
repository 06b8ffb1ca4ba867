"""One table from an answer to what happens next, walked whole."""

import random

import pytest

from config.settings import DeliverSettings, Destination
from ledger.delivery_records import DeliveryOutcome, DeliveryState
from ledger.records import StoredObject, TriagePriority
from sr_writer.backoff import delay_s
from sr_writer.statuses import context_refusal, refusals, rejection, sentence, state_of

PACS = Destination(ae_title="PACS", host="pacs.example", port=104, calling_ae_title="OPENTRIAGE")
TEXT_SR, COMPREHENSIVE_3D = "1.2.840.10008.5.1.4.1.1.88.22", "1.2.840.10008.5.1.4.1.1.88.34"
DELIVERED, WAITING, REFUSED = DeliveryState.DELIVERED, DeliveryState.WAITING, DeliveryState.REFUSED


@pytest.mark.parametrize(
    ("status", "state"),
    [
        *[(s, DELIVERED) for s in (0x0000, 0x0001, 0x0107, 0x0111, 0x0116, 0xB000, 0xB006, 0xB007, 0xB123)],
        *[(s, WAITING) for s in (0xA700, 0xA701, 0xA7FF, 0x0110, 0x0210, 0x0213)],
        *[(s, REFUSED) for s in (0xA900, 0xA9FF, 0xC000, 0xC123, 0xCFFF, 0x0117, 0x0122, 0x0124, 0x0211, 0x0212)],
        *[(s, REFUSED) for s in (0x0105, 0x0112, 0xA800, 0xFF00, 0xFE00, 0xFFFF)],
    ],
)
def test_the_table(status: int, state: DeliveryState) -> None:
    assert state_of(status) is state


@pytest.mark.parametrize("status", [0xA900, 0xC000, 0x0117, 0x0122, 0x0124, 0xFFFF])
def test_a_refusal_names_the_peer_and_the_class_and_what_to_change(status: int) -> None:
    text = sentence(status, TEXT_SR, PACS)
    assert "PACS@pacs.example:104" in text
    assert "Enhanced SR Storage" in text
    assert f"0x{status:04X}" in text
    assert any(word in text for word in ("check", "enable", "allow", "look at"))


def test_success_needs_no_words() -> None:
    assert sentence(0x0000, TEXT_SR, PACS) == ""
    assert "already holds" in sentence(0x0111, TEXT_SR, PACS)


@pytest.mark.parametrize(("reason", "word"), [(3, "OPENTRIAGE"), (7, "PACS"), (1, "OPENTRIAGE"), (99, "OPENTRIAGE")])
def test_a_rejection_names_the_ae_title_to_correct(reason: int, word: str) -> None:
    assert f"AE title {word}" in rejection(1, reason, PACS)


def form(sop_class_uid: str) -> StoredObject:
    return StoredObject(1, "sr", sop_class_uid, "2.25.1", "1.2.840.10008.1.2.1", "", "", TriagePriority.HIGH)


def test_a_refused_context_names_class_and_syntax() -> None:
    text = context_refusal((form(TEXT_SR),), {TEXT_SR: 4}, PACS)
    assert "Enhanced SR Storage" in text
    assert "enable Explicit or Implicit VR Little Endian" in text


def test_a_refused_choice_names_every_form() -> None:
    text = context_refusal((form(COMPREHENSIVE_3D), form(TEXT_SR)), {COMPREHENSIVE_3D: 3, TEXT_SR: 3}, PACS)
    assert "Comprehensive 3D SR Storage nor Enhanced SR Storage from" in text
    assert "(result 3): enable storage of one of these classes" in text


def refused(sop_class_uid: str, status: int | None, reason: str = "") -> tuple[StoredObject, DeliveryOutcome]:
    return form(sop_class_uid), DeliveryOutcome(1, REFUSED, status, reason)


def test_each_reason_is_said_once_and_names_what_met_it() -> None:
    forms = [refused(TEXT_SR, 0x0122), refused(COMPREHENSIVE_3D, 0x0122), refused(TEXT_SR, 0x0122)]
    others = [refused(TEXT_SR, 0xC000), refused(TEXT_SR, None, "No."), refused(COMPREHENSIVE_3D, None, "No.")]
    assert refusals([*forms, *others], PACS) == (
        "PACS@pacs.example:104 refused the Enhanced SR Storage and the Comprehensive 3D SR Storage (0x0122): it does "
        "not support these SOP classes: enable storage of these classes there. "
        f"{sentence(0xC000, TEXT_SR, PACS)} No."
    )


def test_delays_double_to_a_ceiling_and_differ_by_chance() -> None:
    settings = DeliverSettings(retry_first_s=1.0, retry_max_s=900.0)
    rng = random.Random(1)
    for attempt in range(1, 40):
        full = min(2.0 ** (attempt - 1), 900.0)
        delays = {delay_s(attempt, settings, rng) for _ in range(20)}
        assert len(delays) > 1
        assert all(full / 2 <= delay <= full for delay in delays)
    assert delay_s(10_000, settings) <= 900.0
    assert delay_s(0, settings) <= 1.0
