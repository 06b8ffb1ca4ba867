"""The same evidence looked at the same way has the same UIDs; whatever changes what is said changes them."""

import dataclasses
import re
import uuid
from datetime import timedelta
from pathlib import Path

import pytest

from ledger.records import ReportKind, StudyFindings
from sr_writer.identity import Identity, device_uid, identity_of, tracking_uid, uid_from
from tests.support.dx import make_dx
from tests.support.findings import OTHER_MODEL, analysed, flagged_study, keep, new_store, study


@pytest.fixture
def findings(tmp_path: Path) -> StudyFindings:
    return flagged_study(new_store(tmp_path))


def _of(findings: StudyFindings, **changes: str) -> Identity:
    values = {"results_hash": "aa", "installation_uid": "2.25.1", "plan": "text_sr"} | changes
    return identity_of(findings, **values)


def test_a_uid_is_a_uuid_of_version_8_below_2_25() -> None:
    for i in range(50):
        uid = uid_from("part", str(i))
        assert re.fullmatch(r"2\.25\.(0|[1-9]\d*)", uid)
        assert len(uid) <= 44
        value = uuid.UUID(int=int(uid.removeprefix("2.25.")))
        assert value.version == 8
        assert value.variant == uuid.RFC_4122


def test_parts_do_not_run_into_each_other() -> None:
    assert uid_from("ab", "c") != uid_from("a", "bc")


def test_the_same_input_has_the_same_uids(findings: StudyFindings) -> None:
    assert _of(findings).instance("text_sr") == _of(findings).instance("text_sr")


def test_the_time_of_the_report_is_no_part_of_its_identity(findings: StudyFindings) -> None:
    later = dataclasses.replace(findings, reported_at=findings.reported_at + timedelta(hours=1))
    assert _of(later).instance("text_sr") == _of(findings).instance("text_sr")


def test_kind_of_object_and_level_have_their_own_uids(findings: StudyFindings) -> None:
    names = {_of(findings).instance(k) for k in ("text_sr", "measurement_sr")} | {_of(findings).series("text_sr")}
    assert len(names) == 3


@pytest.mark.parametrize("change", [{"results_hash": "bb"}, {"installation_uid": "2.25.2"}, {"plan": "measurement_sr"}])
def test_settings_installation_and_plan_change_it(findings: StudyFindings, change: dict[str, str]) -> None:
    assert _of(findings, **change).instance("text_sr") != _of(findings).instance("text_sr")


def test_a_provisional_report_is_another_object_than_the_final_one(findings: StudyFindings) -> None:
    provisional = dataclasses.replace(findings, kind=ReportKind.PROVISIONAL)
    assert _of(provisional).instance("text_sr") != _of(findings).instance("text_sr")


def test_other_bytes_under_the_same_sop_instance_change_it(findings: StudyFindings) -> None:
    seen = findings.looked_at[0]
    corrected = dataclasses.replace(seen, instance=dataclasses.replace(seen.instance, sha256="ff" * 32))
    other = dataclasses.replace(findings, looked_at=(corrected,))
    assert _of(other).instance("text_sr") != _of(findings).instance("text_sr")


def test_another_model_changes_it(findings: StudyFindings) -> None:
    seen = findings.looked_at[0]
    other = study((seen.instance, [analysed(model=OTHER_MODEL)]))
    assert _of(other).instance("text_sr") != _of(findings).instance("text_sr")


def test_the_order_of_arrival_does_not_change_it(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    first, second = make_dx(), make_dx()
    second.StudyInstanceUID = first.StudyInstanceUID
    one, two = (keep(first, store), [analysed()]), (keep(second, store), [analysed()])
    assert _of(study(one, two)) == _of(study(two, one))


def test_a_report_made_anew_is_another_document_even_if_the_first_never_left(findings: StudyFindings) -> None:
    anew = dataclasses.replace(findings, revision=2)
    assert anew.predecessors == findings.predecessors == ()
    assert _of(anew).instance("text_sr") != _of(findings).instance("text_sr")


def test_a_tracking_uid_outlives_a_revision() -> None:
    assert tracking_uid("2.25.1", "1.2.3", "m", "pneumonia") == tracking_uid("2.25.1", "1.2.3", "m", "pneumonia")
    assert tracking_uid("2.25.1", "1.2.3", "m", "pneumonia") != tracking_uid("2.25.1", "1.2.3", "m", "fracture")


def test_two_installations_are_two_devices() -> None:
    assert device_uid("2.25.1") != device_uid("2.25.2")
