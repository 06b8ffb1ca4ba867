"""A heartbeat goes over the real port and through every stage, whatever a site has switched on, and leaves no trace."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from config import Settings
from config.keeping import HeartbeatSettings
from config.settings import NodeSettings, ReceiveSettings
from ledger.heartbeats import Heartbeat
from ledger.ledger import Ledger
from ledger.records import NO_MODEL, ImageResult, Job, ResultStatus, Stage, TriagePriority
from ledger.store import Store
from node import notices
from node.chores.heartbeat import Heart
from node.roles.report import Say
from node.roles.sink import Sink
from node.running.lease import LeaseKeeper
from node.running.worker import Worker
from node.trying.own_study import CannotCallItself, make_own_study, send_to_self
from scp import metrics
from scp.receiver import Receiver
from tests.support.certificates import Authority
from tests.support.ledgers import analysed

NOWHERE = {"name": "pacs", "ae_title": "PACS", "host": "127.0.0.1", "port": 1}


def make_settings(folder: Path, **more: Any) -> Settings:
    receive = {"host": "127.0.0.1", "port": 0, "free_disk_min_bytes": 0, **more.pop("receive", {})}
    node = {"state_dir": folder, "mode": more.pop("mode", "live")}
    return Settings(
        node=NodeSettings.model_validate(node),
        receive=ReceiveSettings.model_validate(receive),
        heartbeat=HeartbeatSettings(every_s=60.0),
        **more,
    )


@contextmanager
def node(settings: Settings) -> Iterator[Ledger]:
    """A receiver on a real socket, and every stage in a thread; a model that says little of each image."""
    stop = threading.Event()
    store = Store(settings.node.state_dir / "store")
    ledger = Ledger.open(settings.database_url, store, in_shadow=settings.node.mode == "shadow")
    receiver = Receiver(settings, ledger)
    receiver.start()
    notices.publish(settings, "receive", port=receiver.address[1])
    workers = [
        Worker(ledger, Stage.ANALYSE, "test:", 60.0, 3, 8, lambda jobs, keeper: look(ledger, jobs, keeper), stop),
        Worker(ledger, Stage.REPORT, "test:", 60.0, 3, 1, Say(ledger, settings).work, stop),
    ]
    threads = [threading.Thread(target=one.run, daemon=True) for one in (*workers, Sink(ledger, settings, stop))]
    for thread in threads:
        thread.start()
    try:
        yield ledger
    finally:
        stop.set()
        for thread in threads:
            thread.join(30)
        receiver.stop(5.0)
        ledger.close()


def look(ledger: Ledger, jobs: "list[Job] | Any", keeper: LeaseKeeper) -> None:
    for job in jobs:
        keeper.release(job)
        ledger.finish_analysis(job, [result_of(job)])


def result_of(job: Job) -> ImageResult:
    assert job.instance is not None
    result = analysed(0.01, TriagePriority.LOW)
    return replace(result, source_sha256=job.instance.sha256)


def beat(settings: Settings, ledger: Ledger) -> Heartbeat:
    Heart(settings, ledger, threading.Event(), "machine").beat()
    [pulse] = ledger.pulses()
    return pulse.newest


def plain(folder: Path) -> Settings:
    return make_settings(folder)


def closed(folder: Path) -> Settings:
    """Only named callers, from named networks, one association at a time."""
    receive = {"allowed_calling_ae_titles": ["CT1"], "allowed_networks": ["127.0.0.0/8"], "max_associations": 1}
    return make_settings(folder, receive=receive)


def secured(folder: Path) -> Settings:
    return make_settings(folder, receive={"tls": tls(folder, "both")})


def in_shadow(folder: Path) -> Settings:
    hook = {"kind": "hl7", "name": "ris", "on": "all", "host": "127.0.0.1", "port": 1}
    return make_settings(folder, mode="shadow", destinations=[NOWHERE], adapters=[hook])


def with_everybody(folder: Path) -> Settings:
    """A destination that is asked how many images a study has, and an adapter that wants to hear of all."""
    ris = {"kind": "hl7", "name": "ris", "on": "all", "host": "127.0.0.1", "port": NOWHERE["port"]}
    return make_settings(folder, destinations=[NOWHERE], adapters=[ris], study={"count_at": "pacs"})


def tls(folder: Path, usage: str) -> dict[str, Any]:
    authority = Authority(folder)
    pair = authority.issue("node", usage=usage)
    files = {"certificate_file": pair.certificate, "key_file": pair.key, "ca_file": authority.certificate}
    return {"enabled": True, **files}


def received_so_far() -> float:
    [family] = metrics.INSTANCES.collect()
    return sum(sample.value for sample in family.samples if sample.name.endswith("_total"))


@pytest.fixture
def outsider(monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """Listens where every destination and adapter is."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        monkeypatch.setitem(NOWHERE, "port", listener.getsockname()[1])
        yield listener


@pytest.mark.parametrize("site", [plain, closed, secured, in_shadow, with_everybody])
def test_a_heartbeat_arrives_on_every_kind_of_site_and_leaves_no_trace(
    tmp_path: Path, site: Callable[[Path], Settings], outsider: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, before = site(tmp_path), received_so_far()
    told: list[object] = []
    with node(settings) as ledger:
        end = ledger.end_heartbeat
        monkeypatch.setattr(ledger, "end_heartbeat", lambda *of: (told.append(ledger.told_so_far()), end(*of)))
        found = beat(settings, ledger)
        assert found.arrived, found.where
        assert list(found.seconds) == ["receive", "analyse", "report", "deliver"]
        assert [path for path in (ledger.store.root).rglob("*.*") if path.is_file()] == []
        assert ledger.events(found.study_instance_uid) == []
        counts = ledger.counts()
        assert not any(counts[name] for name in ("instances", "jobs", "results", "studies", "deliveries", "proofs"))
        assert told == [{}]
        with pytest.raises(BlockingIOError):
            outsider.accept()  # nobody called
    assert received_so_far() == before
    with_ledger = Ledger.open(settings.database_url, Store(tmp_path / "store"))
    try:
        assert with_ledger.peers() == []  # the receiver has told what it saw
        assert with_ledger.arrival_gaps() == {}
    finally:
        with_ledger.close()


def test_a_heartbeat_that_no_model_looked_at_has_not_arrived(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nobody = ImageResult(ResultStatus.NOT_ASSESSED, "No model is installed.", NO_MODEL, TriagePriority.NOT_ASSESSED)
    monkeypatch.setitem(globals(), "result_of", lambda job: nobody)
    settings = plain(tmp_path)
    with node(settings) as ledger:
        found = beat(settings, ledger)
        [pulse] = ledger.pulses()
    assert (found.arrived, pulse.last) == (False, None)
    assert found.where == "it went the whole path: nobody looked at it: no model is installed"


def test_an_object_that_changed_on_the_disk_is_found_by_the_sink(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = plain(tmp_path)
    with node(settings) as ledger:
        read = ledger.store.read
        monkeypatch.setattr(ledger.store, "read", lambda path: read(path) + b"\0")
        found = beat(settings, ledger)
    assert "it was not read back by the deliver role" in found.where
    assert "its bytes changed" in found.where


def test_a_receiver_that_is_not_there_is_where_it_got_stuck(tmp_path: Path) -> None:
    settings = make_settings(tmp_path, receive={"port": 1})
    ledger = Ledger.open(settings.database_url, Store(tmp_path / "store"))
    try:
        assert Heart(settings, ledger, threading.Event()).beat() is False
        [pulse] = ledger.pulses()
        assert pulse.newest.where.startswith("it was not sent to our own receiver: the receiver at 127.0.0.1:1")
    finally:
        ledger.close()


def test_a_certificate_that_would_not_let_the_node_in_is_said_and_nothing_is_sent(tmp_path: Path) -> None:
    settings = make_settings(tmp_path, receive={"port": 1, "tls": tls(tmp_path, "server")})
    with pytest.raises(CannotCallItself, match="would not let the node in"):
        send_to_self(make_own_study(tmp_path), settings)


def test_a_heartbeat_that_is_stuck_is_given_up_and_removed(tmp_path: Path) -> None:
    settings = make_settings(tmp_path).model_copy(update={"heartbeat": HeartbeatSettings(every_s=0.3)})
    ledger = Ledger.open(settings.database_url, Store(tmp_path / "store"))
    receiver = Receiver(settings, ledger)
    receiver.start()
    notices.publish(settings, "receive", port=receiver.address[1])
    try:
        found = beat(settings, ledger)
    finally:
        receiver.stop(5.0)
        ledger.close()
    assert found.where == "it was not looked at: given up after 1 s"
    assert list((tmp_path / "store" / "instances").rglob("*.dcm")) == []
