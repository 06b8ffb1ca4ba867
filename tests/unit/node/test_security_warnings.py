"""Every choice that lets in, lets out or lays open more than it must is named by check-config, and only that."""

import os
from pathlib import Path
from typing import Any

import pytest

from config import Settings
from node.commands import security_warnings as said
from node.commands.security_warnings import machine_warnings, security_warnings
from node.watching import volume
from node.watching.volume import Found, Kept, encryption

FILES = {"certificate_file": "/c.pem", "key_file": "/k.key", "ca_file": "/ca.pem"}
PACS = {"ae_title": "PACS", "host": "pacs.example", "port": 104}
SAFE: dict[str, Any] = {
    "receive": {"tls": {"enabled": True, **FILES}, "allowed_calling_ae_titles": ["CT1", "OPENTRIAGE"]},
    "peers": [{"ae_title": "CT1", "certificate_names": ["ct1"]}],
    "destinations": [{**PACS, "tls": {"enabled": True, "ca_file": "/ca.pem"}}],
    "audit": {"repository_host": "arr.example"},
}


def settings(**changes: Any) -> Settings:
    """Safe ones, but for sections replaced or extended."""
    made = {**SAFE}
    for name, change in changes.items():
        made[name] = {**made.get(name, {}), **change} if isinstance(change, dict) else change
    return Settings.model_validate(made)


def of(**changes: Any) -> list[str]:
    return list(security_warnings(settings(**changes)))


def test_a_node_that_is_closed_everywhere_is_not_warned_of() -> None:
    assert of() == []


PLAIN = {"tls": {"enabled": False}}
TLS = {"tls": {"enabled": True, **FILES}}


@pytest.mark.parametrize(
    ("changes", "begins"),
    [
        ({"receive": PLAIN, "peers": []}, "receive.tls: off"),
        ({"receive": {**TLS, "allowed_calling_ae_titles": []}, "peers": []}, "receive: anybody on the network"),
        ({"receive": {**TLS, "allowed_calling_ae_titles": []}}, "receive: anybody on the network"),
        (
            {"receive": {**TLS, "allowed_calling_ae_titles": [], "allowed_networks": ["127.0.0.0/8"]}},
            "receive.allowed_calling_ae_titles: empty, so titles that are not in [[peers]]",
        ),
        ({"peers": []}, "peers: none, so whoever has a certificate"),
        (
            {"receive": {**TLS, "allowed_calling_ae_titles": ["CT1"]}},
            "receive.allowed_calling_ae_titles: each is bound",
        ),
        ({"destinations": [PACS]}, "destinations: PACS@pacs.example:104: tls is off"),
        (
            {"destinations": [{**PACS, "tls": {"enabled": True, "ca_file": "/c", "verify_host": False}}]},
            "destinations: PACS@pacs.example:104: tls.verify_host is off",
        ),
        (
            {"commitment_requestors": [{**PACS, "retention_days": 3}]},
            "commitment_requestors: PACS@pacs.example:104: tls",
        ),
        ({"web": {"host": "0.0.0.0", "insecure_plaintext": True}}, "web.insecure_plaintext"),
        (
            {
                "web": {
                    "host": "0.0.0.0",
                    "open_off_loopback": True,
                    "tls": {"certificate_file": "/c", "key_file": "/k"},
                }
            },
            "web.open_off_loopback",
        ),
        ({"audit": {"repository_host": ""}}, "audit.repository_host: none"),
        ({"node": {"database_url": "postgresql+psycopg://me@db.example/x"}}, "node.database_url: PostgreSQL without"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_each_choice_that_lays_open_is_named(changes: dict[str, Any], begins: str) -> None:
    assert any(line.startswith(begins) for line in of(**changes)), of(**changes)


def test_what_stays_on_this_machine_needs_no_tls() -> None:
    here = {**PACS, "host": "127.0.0.1"}
    assert of(destinations=[here], receive={**PLAIN, "host": "127.0.0.1"}, peers=[]) == []
    assert of(node={"database_url": "postgresql+psycopg://me@/x?host=/var/run/postgresql"}) == []


# --- of the machine ---


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine as it should be: nothing to warn of; its state folder."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(said.volume, "encryption", lambda path: Found(Kept.ENCRYPTED, "dm-crypt"))
    monkeypatch.setattr(said.landlock, "abi", lambda: 7)
    monkeypatch.setattr(said.seccomp, "available", lambda: True)
    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    return state


def test_a_machine_as_it_should_be_is_not_warned_of(machine: Path) -> None:
    assert list(machine_warnings(settings(node={"state_dir": machine}))) == []


def warned(machine: Path, config: Path | None = None, **node: Any) -> str:
    [line] = machine_warnings(settings(node={"state_dir": machine, **node}), config)
    return line


def test_root_is_warned_of(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert warned(machine).startswith("this is root")


def test_a_volume_that_is_not_encrypted_and_one_that_cannot_be_told_are_warned_of(
    machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(said.volume, "encryption", lambda path: Found(Kept.PLAIN, "ext4 on sda1"))
    assert "does not encrypt (ext4 on sda1)" in warned(machine)
    monkeypatch.setattr(said.volume, "encryption", lambda path: Found(Kept.UNKNOWN, "nfs4"))
    assert "cannot tell" in warned(machine)


def test_what_others_can_read_of_the_state_is_warned_of(machine: Path) -> None:
    (machine / "ledger.sqlite").touch(mode=0o600)
    (machine / "ledger.sqlite").chmod(0o640)
    assert "1 files or folders can be read by others, such as" in warned(machine)


def test_a_machine_that_cannot_confine_and_a_node_that_shall_not_are_warned_of(
    machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(said.resource, "getrlimit", lambda which: (0, 0))
    assert warned(machine, confine=False).startswith("node.confine: off")
    monkeypatch.setattr(said.resource, "getrlimit", lambda which: (1 << 30, 1 << 30))
    lines = list(machine_warnings(settings(node={"state_dir": machine, "confine": False})))
    assert lines[1].startswith("core dumps are on")
    monkeypatch.setattr(said.landlock, "abi", lambda: 3)
    assert "TCP ports: the kernel's Landlock" in warned(machine)
    monkeypatch.setattr(said.landlock, "abi", lambda: 7)
    monkeypatch.setattr(said.seccomp, "available", lambda: False)
    assert "sockets: no seccomp filter" in warned(machine)


def test_a_password_in_a_file_that_others_can_read_is_warned_of(machine: Path, tmp_path: Path) -> None:
    config = tmp_path / "site.toml"
    config.touch(mode=0o600)
    url = "postgresql+psycopg://me:secret@localhost/x"
    assert list(machine_warnings(settings(node={"state_dir": machine, "database_url": url}), config)) == []
    config.chmod(0o640)
    line = warned(machine, config, database_url=url)
    assert "holds a password" in line
    assert "secret" not in line


def test_a_key_that_everybody_can_read_is_warned_of(machine: Path, tmp_path: Path) -> None:
    key = tmp_path / "node.key"
    key.touch()
    key.chmod(0o604)
    tls = {"enabled": True, "ca_file": "/ca.pem", "certificate_file": "/c.pem", "key_file": key}
    changed = settings(node={"state_dir": machine}, destinations=[{**PACS, "tls": tls}])
    [line] = machine_warnings(changed)
    assert line == f"destinations.tls.key_file: {key} can be read by everybody on this machine"


# --- what a volume is ---


def device(sys: Path, number: str, uuid: str = "", slaves: tuple[str, ...] = ()) -> None:
    """A block device in a /sys of our own."""
    folder = sys / "devices" / number
    (folder / "dm").mkdir(parents=True)
    (folder / "dm" / "uuid").write_text(uuid)
    (folder / "slaves").mkdir()
    for slave in slaves:
        (folder / "slaves" / slave).symlink_to(sys / "devices" / slave)
    (sys / "dev" / "block").mkdir(parents=True, exist_ok=True)
    (sys / "dev" / "block" / number).symlink_to(folder)


@pytest.mark.parametrize(
    ("line", "kept"),
    [
        ("1 0 253:0 / / rw - ext4 /dev/mapper/root rw", Kept.ENCRYPTED),  # LUKS
        ("1 0 253:1 / / rw - xfs /dev/mapper/vg-data rw", Kept.ENCRYPTED),  # LVM on LUKS
        ("1 0 9:0 / / rw shared:1 - ext4 /dev/md0 rw", Kept.PLAIN),  # RAID of LUKS and of a bare disk
        ("1 0 8:1 / / rw - ext4 /dev/sda1 rw", Kept.PLAIN),
        ("1 0 0:50 / / rw - nfs4 server:/data rw", Kept.UNKNOWN),
        ("1 0 0:51 / / rw - overlay overlay rw", Kept.UNKNOWN),
        ("1 0 0:52 / / rw - tmpfs tmpfs rw", Kept.UNKNOWN),
        ("1 0 0:53 / / rw - ecryptfs /home/.x rw", Kept.ENCRYPTED),
        ("1 0 0:54 / / rw - btrfs /dev/nothing-there rw", Kept.UNKNOWN),
        ("1 0 99:9 / / rw - ext4 /dev/gone rw", Kept.UNKNOWN),
        ("", Kept.UNKNOWN),
    ],
)
def test_a_volume_is_what_the_devices_below_it_are(
    tmp_path: Path, line: str, kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(volume, "_by_fscrypt", lambda folder: False)
    sys, mountinfo = tmp_path / "sys", tmp_path / "mountinfo"
    device(sys, "8:1")
    device(sys, "253:0", "CRYPT-LUKS2-0123-root", ("8:1",))
    device(sys, "253:1", "LVM-abc", ("253:0",))
    device(sys, "9:0", "", ("8:1", "253:0"))
    mountinfo.write_text(line + "\n")
    assert encryption(tmp_path / "not" / "made", mountinfo, sys).kept is kept


def test_this_machines_own_volume_can_be_asked() -> None:
    assert encryption(Path("/")).why
