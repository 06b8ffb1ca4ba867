"""The node over TLS: its call to itself, and what it says of its files."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from node.watching.certificates import alarms, today
from node.watching.echo import own_echo
from tests.support.certificates import Authority, Pair
from tests.support.peers import free_port
from tests.support.realdata import ROOT
from tests.support.receiving import Receiving, start_receiving
from tests.support.running import RunningNode, storescu
from tests.support.waiting import wait_until

Start = Callable[..., Receiving]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """start(usage of the node's certificate, **settings of receive.tls)."""
    started: list[Receiving] = []
    authority = Authority(tmp_path / "pki")

    def starter(usage: str, **changes: Any) -> Receiving:
        pair = authority.issue(f"node-{len(started)}", usage=usage)
        tls = {"certificate_file": pair.certificate, "key_file": pair.key, "ca_file": authority.certificate}
        folder = tmp_path / str(len(started))
        running = partial(start_receiving, folder, port=free_port())(tls={"enabled": True, **tls, **changes})
        started.append(running)
        return running

    yield starter
    for running in started:
        running.receiver.stop(0.0)
        running.ledger.close()


@pytest.mark.parametrize("changes", [{}, {"mutual": False}], ids=["mutual", "not mutual"])
def test_the_node_hears_itself(start: Start, changes: dict[str, Any]) -> None:
    assert own_echo(start("both", **changes).settings, timeout_s=20)


def test_a_certificate_that_is_no_clients_proves_the_handshake_and_is_said(start: Start) -> None:
    node = start("server")
    assert own_echo(node.settings, timeout_s=20)
    assert any("its own C-ECHO ends at the handshake" in said for said in alarms(node.settings.receive.tls, today()))
    node.receiver.stop(0.0)
    assert not own_echo(node.settings, timeout_s=5)


def test_files_that_are_damaged_meanwhile_do_not_make_a_node_ill(start: Start) -> None:
    node = start("both")
    node.settings.receive.tls.certificate_file.write_text("half of")
    assert own_echo(node.settings, timeout_s=20)
    [said] = alarms(node.settings.receive.tls, today())
    assert "goes on with the files that it read before" in said


def section(authority: Authority, node: Pair) -> str:
    return (
        f"[receive.tls]\nenabled = true\ncertificate_file = '{node.certificate}'\nkey_file = '{node.key}'\n"
        f"ca_file = '{authority.certificate}'\n"
    )


@pytest.mark.timeout(300)
def test_a_whole_node_is_ready_and_healthy_over_tls(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "pki")
    pair, shown = authority.issue("node", days=100), authority.issue("modality")
    looks_at_nothing = f"[look]\nmodels_dir = {str(tmp_path)!r}\n"
    with RunningNode(tmp_path / "node", extra=looks_at_nothing + section(authority, pair)) as node:
        tls = ["+tls", shown.key, shown.certificate, "+cf", authority.certificate]
        sent = storescu(node.port, ROOT / "node/samples/synthetic-chest-1.dcm", extra=[str(word) for word in tls])
        assert sent.returncode == 0, sent.stderr
        assert storescu(node.port, ROOT / "node/samples/synthetic-chest-1.dcm").returncode != 0  # in the clear
        wait_until(lambda: node.get("/healthz").json()["echo_answered"], 60)
        assert node.get("/healthz").json()["alarms"] == []
        pair.certificate.write_text("half of")
        wait_until(lambda: node.get("/healthz").json()["echo_answered"], 60)
        assert [one.partition(":")[0] for one in node.get("/healthz").json()["alarms"]] == ["receive.tls"]


def test_a_node_whose_certificates_cannot_be_used_says_so_and_does_not_start(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "pki")
    pair = Pair(authority.issue("node").certificate, authority.issue("other").key)
    node = RunningNode(tmp_path / "node", extra=section(authority, pair))
    command = [sys.executable, "-m", "node.cli", "serve", "--config", str(node.config)]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 1
    assert ended.stderr.splitlines()[-1] == "cannot start: receive.tls: key_file is not the key of certificate_file"
