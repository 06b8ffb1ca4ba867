"""The age of the last heartbeat is the node's health; drift and lost files are alarms."""

import hashlib
import re
import socket
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from sqlalchemy import update

from config import Settings
from config.keeping import HeartbeatSettings
from ledger import removal
from ledger.completion import Completion
from ledger.ledger import Ledger
from ledger.records import Stage
from ledger.tables import heartbeats, jobs
from node import notices
from node.watching.health import HealthCheck
from node.watching.heartbeat_health import judged as judge
from node.watching.invariant import instances_of
from node.watching.metrics import make_registry, render
from node.wiring import open_ledger
from tests.support.ledgers import admit
from tests.support.records import received

EVERY_S = 100.0


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    node = Settings().node.model_copy(update={"state_dir": tmp_path})
    receive = Settings().receive.model_copy(update={"host": "127.0.0.1", "port": 0, "free_disk_min_bytes": 0})
    heartbeat = HeartbeatSettings(every_s=EVERY_S)
    return Settings().model_copy(update={"node": node, "receive": receive, "heartbeat": heartbeat})


@pytest.fixture
def ledger(settings: Settings) -> Iterator[Ledger]:
    ledger = open_ledger(settings)
    yield ledger
    ledger.close()


def sent(ledger: Ledger, ago_s: float, arrived: bool = True, machine: str = "") -> None:
    uid = f"2.25.{hashlib.sha256(f'{ago_s} {machine}'.encode()).digest()[0]}"
    ledger.register_heartbeat(uid, uid, "f" * 64, machine or socket.gethostname())
    ledger.end_heartbeat(uid, "" if arrived else "the receiver did not take the association")
    then = heartbeats.c.registered_at - ago_s
    values = {"registered_at": then, "ended_at": then, **({"delivered_at": then} if arrived else {})}
    with ledger._write() as connection:
        connection.execute(update(heartbeats).where(heartbeats.c.study_uid == uid).values(**values))


def test_a_heartbeat_that_arrived_in_the_last_three_periods_is_health(settings: Settings, ledger: Ledger) -> None:
    sent(ledger, 240.0)  # far enough from 300 for a machine that takes its time
    assert judge(settings, ledger, up_s=10_000.0) == ([], [])


def test_without_one_the_node_is_red_and_says_where_the_newest_got_stuck(settings: Settings, ledger: Ledger) -> None:
    sent(ledger, 400.0)
    sent(ledger, 5.0, arrived=False)
    [reason], alarms = judge(settings, ledger, up_s=10_000.0)
    said = r"no heartbeat has arrived for 4\d\d s; of the newest: it was not sent to our own receiver: the "
    assert re.match(said, reason)  # 400 s, and what the test takes
    assert alarms == []


def test_a_node_that_has_just_started_is_given_three_periods(settings: Settings, ledger: Ledger) -> None:
    sent(ledger, 9_000.0)
    assert judge(settings, ledger, up_s=250.0) == ([], [])
    assert judge(settings, ledger, up_s=350.0)[0]


def test_a_node_that_never_sent_one_is_red_in_the_end(settings: Settings, ledger: Ledger) -> None:
    assert judge(settings, ledger, up_s=350.0) == (["no heartbeat was sent for 350 s: does the role keep run?"], [])


def test_what_another_machines_heartbeats_do_says_nothing_of_this_one(settings: Settings, ledger: Ledger) -> None:
    sent(ledger, 400.0)
    sent(ledger, 5.0, machine="another")
    assert judge(settings, ledger, up_s=10_000.0)[0]


def test_a_node_that_is_busy_with_patients_lets_its_heartbeat_wait_and_is_not_red(
    settings: Settings, ledger: Ledger
) -> None:
    sent(ledger, 400.0)
    image = received("2.25.9", sop_instance_uid="2.25.10")
    ledger.register_heartbeat("2.25.9", "2.25.10", image.sha256, socket.gethostname())
    ledger.admit(image, Completion(20.0))
    admit(ledger)
    reasons, [alarm] = judge(settings, ledger, up_s=10_000.0)
    assert reasons == []
    assert "it was not looked at, behind 1 jobs of patients" in alarm


def test_where_the_nodes_own_certificate_would_not_let_it_in_that_is_an_alarm(
    settings: Settings, ledger: Ledger
) -> None:
    notices.publish(settings, "heartbeat", impossible="the certificate is not for clients")
    reasons, [alarm] = judge(settings, ledger, up_s=10_000.0)
    assert (reasons, "the certificate is not for clients" in alarm) == ([], True)


def test_off_is_off(settings: Settings, ledger: Ledger) -> None:
    off = settings.model_copy(update={"heartbeat": HeartbeatSettings(every_s=0)})
    assert judge(off, ledger, up_s=10_000.0) == ([], [])


def test_an_instance_that_was_received_and_forgotten_is_an_alarm(settings: Settings, ledger: Ledger) -> None:
    admit(ledger)
    assert not HealthCheck(settings, ledger).check().alarms
    with ledger._write() as connection:
        connection.execute(jobs.delete().where(jobs.c.stage == Stage.ANALYSE))
    [alarm] = HealthCheck(settings, ledger).check().alarms
    assert "neither done nor under way: 1" in alarm


def test_what_retention_or_a_person_removed_is_no_drift(settings: Settings, ledger: Ledger) -> None:
    image = admit(ledger)
    admit(ledger, 2)
    for take in (removal.take_images, partial(removal.take_all, study_too=True)):
        with ledger._write() as connection:
            take(connection, image.study_instance_uid)
        assert instances_of(ledger.counts()).drift == 0
    assert instances_of(ledger.counts()).received == 2  # a counter never shrinks


def test_an_acknowledged_file_that_is_gone_at_the_start_is_an_alarm_until_it_is_there_again(
    settings: Settings, ledger: Ledger
) -> None:
    data = b"a data set"
    digest = hashlib.sha256(data).hexdigest()
    content = bytes(128) + b"DICM" + b"\x02\0\0\0UL\x04\0" + bytes(4) + data
    path = ledger.store.put("instances", digest, ".dcm", content)
    ledger.admit(received(sha256=digest, path=path, size_bytes=len(content)), Completion(20.0))
    stored = ledger.store.path(path)
    aside = stored.rename(stored.with_suffix(".aside"))
    assert len(ledger.reconcile().lost) == 1
    [alarm] = HealthCheck(settings, ledger).check().alarms
    assert "damaged or gone" in alarm
    (ledger.store.root / "orphans" / aside.name).rename(stored)
    assert ledger.reconcile().lost == []
    assert not HealthCheck(settings, ledger).check().alarms


def test_the_metrics_tell_a_heartbeats_age_and_stages_and_what_was_promised(settings: Settings, ledger: Ledger) -> None:
    sent(ledger, 50.0, machine="node-1")
    text = render(make_registry(settings, ledger)).decode()
    assert 'opentriage_heartbeat_age_seconds{machine="node-1"}' in text
    assert 'opentriage_slo_due_total{kind="provisional",priority="HIGH"} 0.0' in text
    assert 'opentriage_slo_target_seconds{kind="provisional",priority="HIGH"} 1.0' in text
    assert "opentriage_ledger_up 1.0" in text


def test_without_the_ledger_the_metrics_say_so_and_what_else_is_known(settings: Settings, ledger: Ledger) -> None:
    registry = make_registry(settings, ledger)
    for name in ("ledger.sqlite", "ledger.sqlite-wal", "ledger.sqlite-shm"):
        (settings.node.state_dir / name).unlink(missing_ok=True)
    ledger.close()
    text = render(registry).decode()
    assert "opentriage_ledger_up 0.0" in text
    assert "opentriage_store_free_bytes" in text
