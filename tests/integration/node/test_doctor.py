"""`opentriage doctor` finds what is wrong before it matters, says what to do, and stores nothing anywhere."""

import json
import socket
import sqlite3
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from pydicom.dataset import Dataset
from pynetdicom import AE, AllStoragePresentationContexts, evt
from sqlalchemy import create_engine, text
from typer.testing import CliRunner, Result

from config import Settings, load_settings
from config.settings import Destination
from ledger.errors import LedgerUnavailable
from node.checkup import lines as checkup
from node.checkup import machine as checkup_machine
from node.checkup import peers as checkup_peers
from node.checkup import this_node as checkup_node
from node.checkup.lines import Level, Line
from node.cli import app
from node.watching import durability
from node.wiring import open_ledger
from sr_writer.probe_study import PATIENT_ID
from tests.support.audit_repository import repository
from tests.support.certificates import Authority
from tests.support.peers import free_port, need
from tests.support.waiting import listens, wait_until

SR = "1.2.840.10008.5.1.4.1.1.88."


@contextmanager
def peer(refuses: tuple[str, ...] = (), verifies: bool = True) -> Iterator[tuple[int, list[Dataset]]]:
    """A storage service that does not know the classes below `refuses`; what came."""
    came: list[Dataset] = []

    def store(event: evt.Event) -> int:
        came.append(event.dataset)
        return 0x0000

    ae = AE(ae_title="PACS")
    for context in AllStoragePresentationContexts:
        if not str(context.abstract_syntax).startswith(refuses or ("-",)):
            ae.add_supported_context(context.abstract_syntax or "")
    if verifies:
        ae.add_supported_context("1.2.840.10008.1.1")
    server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, store)])
    try:
        yield server.server_address[1], came
    finally:
        server.shutdown()


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return site(tmp_path)


def site(folder: Path, *more: str) -> Settings:
    (folder / "models").mkdir(exist_ok=True)
    lines = [
        "[node]",
        f"state_dir = {json.dumps(str(folder / 'state'))}",
        "[receive]",
        'host = "127.0.0.1"',
        f"port = {free_port()}",
        "free_disk_min_bytes = 1000",
        "[web]",
        f"port = {free_port()}",
        "[look]",
        f"models_dir = {json.dumps(str(folder / 'models'))}",
        *more,
    ]
    (folder / "site.toml").write_text("\n".join(lines) + "\n")
    return load_settings(folder / "site.toml")


def block(port: int, name: str = "pacs") -> str:
    return f'[[destinations]]\nname = "{name}"\nae_title = "PACS"\nhost = "127.0.0.1"\nport = {port}'


def doctor(folder: Path, *arguments: str, answer: str = "") -> Result:
    runner = CliRunner(env={"COLUMNS": "200"})
    return runner.invoke(app, ["doctor", "--config", str(folder / "site.toml"), *arguments], input=answer)


def asked(port: int, settings: Settings) -> dict[str, Line]:
    one = Destination(name="pacs", ae_title="PACS", host="127.0.0.1", port=port)
    return {
        line.what.removeprefix("destination pacs").lstrip(": "): line
        for line in checkup_peers.destination(one, settings)
    }


# --- destinations: C-ECHO and negotiation ---


def test_a_destination_says_what_it_would_take_and_gets_nothing(settings: Settings) -> None:
    with peer() as (port, came):
        found = asked(port, settings)
    assert (found["C-ECHO"].level, found["objects"].level) == (Level.OK, Level.OK)
    assert "Comprehensive SR (explicit/implicit)" in found["objects"].found
    assert found["proof"].level is Level.WARNING
    assert came == []


def test_a_destination_that_takes_no_report_is_a_failure_that_names_what_it_lacks(settings: Settings) -> None:
    with peer(refuses=(SR,)) as (port, _):
        found = asked(port, settings)["objects"]
    assert found.level is Level.FAILURE
    assert "Enhanced SR" in found.found.partition("; not ")[2]
    assert "text sr" in found.do


def test_a_destination_without_verification_is_negotiated_with_all_the_same(settings: Settings) -> None:
    with peer(verifies=False) as (port, _):
        found = asked(port, settings)
    assert (found["C-ECHO"].level, found["objects"].level) == (Level.WARNING, Level.OK)


@pytest.mark.parametrize(("mode", "level"), [("live", Level.FAILURE), ("shadow", Level.WARNING)])
def test_a_destination_that_is_away_is_no_failure_while_nothing_is_sent(
    settings: Settings, mode: str, level: Level
) -> None:
    node = settings.node.model_copy(update={"mode": mode})
    [line] = asked(free_port(), settings.model_copy(update={"node": node})).values()
    assert (line.level, "pacs-down" in line.do) == (level, True)
    assert "PACS@127.0.0.1:" in line.found  # whoever reads it at night need not look its address up


# --- adapters ---


def test_an_adapter_is_connected_to_and_told_nothing(tmp_path: Path) -> None:
    heard: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def listen() -> None:
            connection, _ = server.accept()
            with connection:
                heard.append(connection.recv(100))

        thread = threading.Thread(target=listen)
        thread.start()
        hl7 = f'[[adapters]]\nkind = "hl7"\nname = "ris"\nhost = "127.0.0.1"\nport = {server.getsockname()[1]}'
        [line] = checkup_peers.adapter(site(tmp_path, hl7).adapters[0])
        thread.join(20)
    assert (line.level, heard) == (Level.OK, [b""])


def test_an_adapter_whose_certificate_nobody_vouches_for_is_a_failure(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    server = authority.issue("ris")
    port, openssl = free_port(), need("openssl")
    command = [openssl, "s_server", "-quiet", "-accept", f"127.0.0.1:{port}"]
    process = subprocess.Popen(
        [*map(str, command), "-cert", server.certificate, "-key", server.key], stdin=subprocess.PIPE
    )
    try:
        wait_until(lambda: listens(port), 20)
        url = f'[[adapters]]\nkind = "ups"\nname = "ups"\nurl = "https://127.0.0.1:{port}/dicom-web"'
        [line] = checkup_peers.adapter(site(tmp_path, url).adapters[0])
    finally:
        process.kill()
        process.communicate()
    assert line.level is Level.FAILURE
    assert "TLS" in line.found


# --- the machine ---


def test_an_audit_repository_is_connected_to_and_told_nothing(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    told = f'[audit]\nrepository_host = "localhost"\nca_file = "{authority.certificate}"\nrepository_port = '
    with repository(authority) as there:
        found = list(checkup_peers.repository(site(tmp_path, f"{told}{there.port}")))
    assert [line.level for line in found] == [Level.OK], found
    assert (there.connections, there.messages) == (1, [])
    site(tmp_path, f"{told}{free_port()}")
    said = [json.loads(line) for line in doctor(tmp_path, "--json").stdout.splitlines()]
    [away] = [line for line in said if line["what"].startswith("audit repository")]
    assert (away["level"], "cannot be reached" in away["found"]) == ("failure", True)


def test_a_port_that_another_program_has_is_a_failure_with_what_to_look_at(settings: Settings) -> None:
    [line] = checkup_machine.web_port(settings)
    assert line.level is Level.OK
    with socket.create_server(("127.0.0.1", settings.web.port)):
        [line] = checkup_machine.web_port(settings)
    assert (line.level, "ss -ltnp" in line.do) == (Level.FAILURE, True)


def test_a_disk_too_full_to_receive_is_a_failure(settings: Settings) -> None:
    receive = settings.receive.model_copy(update={"free_disk_min_bytes": 1 << 60})
    line = next(checkup_machine.disk(settings.model_copy(update={"receive": receive})))
    assert (line.level, "disk-full" in line.do) == (Level.FAILURE, True)


def test_a_flush_that_is_too_quick_for_any_disk_is_told(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(durability, "measure_sync", lambda folder: durability.Sync(3e-6, 9e-6))
    monkeypatch.setattr(durability, "file_system", lambda folder: "ext4")
    found = {line.what: line for line in checkup_machine.disk(settings)}
    assert found["disk: sync"].level is Level.WARNING
    monkeypatch.setattr(durability, "measure_sync", lambda folder: durability.Sync(8e-4, 2e-3))
    found = {line.what: line for line in checkup_machine.disk(settings)}
    assert found["disk: sync"].level is Level.OK


def test_a_sync_is_measured_and_leaves_nothing_behind(tmp_path: Path) -> None:
    took = durability.measure_sync(tmp_path)
    assert 0.0 < took.median_s <= took.slowest_s
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("place", "said"), [("queue", "write back"), ("../queue", "write through")])
def test_a_write_cache_is_read_of_the_disk_or_of_the_disk_of_a_partition(tmp_path: Path, place: str, said: str) -> None:
    device = tmp_path.stat().st_dev
    block = tmp_path / "sys" / "dev" / "block" / f"{device >> 8 & 0xFFF}:{device & 0xFF}"
    block.mkdir(parents=True)
    (block / place).mkdir()
    (block / place / "write_cache").write_text(f"{said}\n")
    assert durability.write_cache(tmp_path, tmp_path / "sys") == said
    assert durability.write_cache(tmp_path, tmp_path / "nothing") is None


# --- the node ---


def test_nothing_is_made_by_asking(settings: Settings, tmp_path: Path) -> None:
    [line] = checkup_node.ledger(settings)
    assert line.level is Level.OK
    assert not (tmp_path / "state").exists()


def test_a_ledger_that_cannot_be_written_is_a_failure_by_the_name_of_the_trouble(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_ledger(settings).close()
    why = "the ledger refused a transaction: OperationalError (SQLITE_READONLY: its file is read-only)"

    def read_only(url: str) -> None:
        raise LedgerUnavailable(why)

    monkeypatch.setattr(checkup_node, "check_writable", read_only)
    [line] = checkup_node.ledger(settings)
    assert (line.level, why in line.found, "ledger-unavailable" in line.do) == (Level.FAILURE, True, True)


def test_a_ledger_whose_file_is_damaged_is_a_failure_though_it_answers(settings: Settings) -> None:
    open_ledger(settings).close()
    path = settings.node.state_dir / "ledger.sqlite"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE noise AS SELECT zeroblob(200000) AS x")
    connection.close()
    with path.open("r+b") as raw:
        raw.seek(path.stat().st_size - 20 * 4096)
        raw.write(bytes(range(256)) * 16 * 5)
    found = {line.what: line for line in checkup_node.ledger(settings)}
    assert found["ledger"].level is Level.OK
    damaged = found["ledger: its file"]
    assert (damaged.level, "restore a backup" in damaged.do) == (Level.FAILURE, True)


@pytest.mark.parametrize(("schema", "level"), [("0007", Level.WARNING), ("9999", Level.FAILURE)])
def test_a_ledger_of_another_schema_is_told(settings: Settings, schema: str, level: Level) -> None:
    open_ledger(settings).close()
    found = {line.what: line for line in checkup_node.ledger(settings)}
    assert (found["ledger"].level, found["ledger: clock"].level) == (Level.OK, Level.OK)
    engine = create_engine(settings.database_url)
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = :schema"), {"schema": schema})
    engine.dispose()
    assert next(checkup_node.ledger(settings)).level is level


# --- all together ---


def test_what_does_not_answer_is_a_failure_of_its_own_and_holds_up_nobody() -> None:
    stuck = threading.Event()

    def waits() -> Iterator[Line]:
        stuck.wait(60)
        yield checkup.ok("never", "")

    def breaks() -> Iterator[Line]:
        raise ValueError("Doe^Jane")
        yield

    began = time.monotonic()
    lines = list(checkup.run({"a": waits, "b": breaks, "c": lambda: iter([checkup.ok("c", "fine")])}, 0.5))
    stuck.set()
    assert [line.level for line in lines] == [Level.FAILURE, Level.FAILURE, Level.OK]
    assert "Doe" not in str(lines)
    assert time.monotonic() - began < 30


def test_the_command_says_all_of_it_and_fails_where_something_does(tmp_path: Path) -> None:
    with peer() as (port, came):
        site(tmp_path, block(port), block(free_port(), "away"))
        result = doctor(tmp_path, "--json")
    lines = {line["what"]: line for line in map(json.loads, result.stdout.splitlines())}
    assert result.exit_code == 1
    assert lines["destination pacs: C-ECHO"]["level"] == "ok"
    assert lines["destination away"]["level"] == "failure"
    assert {"clock", "clock: time zone", "memory", "disk: sync", "ledger", "models", "provider"} <= set(lines)
    assert all(line["do"] for line in lines.values() if line["level"] != "ok")
    assert came == []


def test_a_test_patient_is_sent_only_when_asked_for_and_agreed_to(tmp_path: Path) -> None:
    with peer() as (port, came):
        site(tmp_path, block(port))
        refused = doctor(tmp_path, "--send-test-patient")
        assert (refused.exit_code, came) == (2, [])
        assert "OPENTRIAGE-PROBE" in refused.stderr
        assert f"PACS@127.0.0.1:{port}" in refused.stderr
        sent = doctor(tmp_path, "--send-test-patient", "--yes")
    assert {one.PatientID for one in came} == {PATIENT_ID}
    assert "test patient at pacs: 15 of 15 objects stored" in sent.stdout
