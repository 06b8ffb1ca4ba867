"""What is said of the TLS files before they fail anybody."""

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from config.settings import TlsSettings
from node.watching import certificates
from node.watching.certificates import ExpiryWatch, alarms, ended, errors, today, warnings
from tests.support.certificates import Authority, Pair


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("pki"))


@pytest.fixture(scope="module")
def node(authority: Authority) -> Pair:
    return authority.issue("node", days=300)


def files(authority: Authority, node: Pair, **changes: Any) -> TlsSettings:
    named = {"certificate_file": node.certificate, "key_file": node.key, "ca_file": authority.certificate}
    return TlsSettings.model_validate({"enabled": True, **named, **changes})


def test_good_files_are_passed_in_silence(authority: Authority, node: Pair) -> None:
    tls = files(authority, node, crl_file=authority.revoke())
    assert (list(errors(tls, today())), list(warnings(tls, today())), alarms(tls, today())) == ([], [], [])


def test_each_file_that_stops_everybody_is_named(authority: Authority, node: Pair, tmp_path: Path) -> None:
    for name in ("certificate_file", "key_file", "ca_file", "crl_file"):
        [said] = errors(files(authority, node, **{name: tmp_path / "away"}), today())
        assert said == f"receive.tls.{name}: {tmp_path / 'away'} cannot be read: No such file or directory"
    [said] = errors(files(authority, node, key_file=authority.issue("other").key), today())
    assert said == "receive.tls: key_file is not the key of certificate_file"


def test_a_key_with_a_passphrase_is_refused_and_nobody_is_asked(
    authority: Authority, node: Pair, tmp_path: Path
) -> None:
    sealed = tmp_path / "sealed.key"
    Authority.openssl("ec", "-in", node.key, "-aes256", "-passout", "pass:secret", "-out", sealed)
    [said] = errors(files(authority, node, key_file=sealed), today())
    assert "has a passphrase" in said
    assert f"openssl pkey -in {sealed} -out NEW" in said


def test_an_expired_certificate_an_open_key_and_an_old_list_are_errors(authority: Authority) -> None:
    pair = authority.issue("short", days=2)
    tls = files(authority, pair, crl_file=authority.revoke())
    pair.key.chmod(0o644)
    said = list(errors(tls, today() + timedelta(days=40)))
    assert [text.partition(":")[0] for text in said] == [
        "receive.tls.certificate_file",
        "receive.tls.crl_file",
        "receive.tls.key_file",
    ]
    assert "has expired" in said[0]
    assert "past its next update" in said[1]
    assert "everybody" in said[2]


def test_what_has_ended_is_a_reason_to_be_red_and_no_alarm_beside_it(authority: Authority) -> None:
    tls = files(authority, authority.issue("ends", days=2), crl_file=authority.revoke())
    later = today() + timedelta(days=40)
    assert list(ended(tls, today())) == []
    assert [text.partition(":")[0] for text in ended(tls, later)] == [
        "receive.tls.certificate_file",
        "receive.tls.crl_file",
    ]
    assert alarms(tls, later) == []
    assert list(ended(TlsSettings(), later)) == []


def test_what_should_not_stay_so_is_warned_of_and_alarms(authority: Authority) -> None:
    tls = files(authority, authority.issue("server-only", days=20, usage="server"))
    said = list(warnings(tls, today()))
    assert said[0] == "receive.tls.certificate_file: expires in 19 days"
    assert "its own C-ECHO ends at the handshake" in said[1]
    assert alarms(tls, today()) == said
    one_sided = files(authority, authority.issue("long", days=300), mutual=False, ca_file=Path())
    [open_to_all] = warnings(one_sided, today())
    assert open_to_all.startswith("receive.tls.mutual: off")


def test_files_without_effect_are_named(authority: Authority, node: Pair, tmp_path: Path) -> None:
    tls = files(authority, node, mutual=False, crl_file=tmp_path / "away")
    assert list(errors(tls, today())) == []
    assert "ca_file and crl_file has no effect" in list(warnings(tls, today()))[1]
    assert alarms(tls, today()) == []


def test_the_log_tells_of_the_end_three_times_and_then_of_the_end_itself(authority: Authority) -> None:
    tls = files(authority, authority.issue("watched", days=100))
    watch, now = ExpiryWatch(tls), datetime.now(UTC)
    with capture_logs() as logs:
        for hour in range(0, 102 * 24, 6):
            watch.look(now + timedelta(hours=hour))
    assert [(line["days_left"], line["log_level"]) for line in logs] == [
        (29, "warning"),
        (6, "warning"),
        (0, "error"),
        (-1, "error"),
    ]


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is taken apart, each time."""
    done: list[str] = []

    def counted(name: str) -> Any:
        real = getattr(certificates, name)

        def call(of: Any) -> Any:
            done.append(name)
            return real(of)

        return call

    for name in ("server_context", "rehearse", "certificate_expiry", "revocations_expiry"):
        monkeypatch.setattr(certificates, name, counted(name))
    monkeypatch.setattr(certificates, "_kept", {})
    return done


def test_a_health_check_reads_a_file_again_only_when_it_is_another_one(
    authority: Authority, read: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pair, later = authority.issue("renewed", days=20), authority.issue("later", days=300)
    tls = files(authority, pair, crl_file=authority.revoke())
    said = [(list(ended(tls, today())), alarms(tls, today())) for _ in range(5)]
    assert said == [([], ["receive.tls.certificate_file: expires in 19 days"])] * 5
    assert sorted(read) == ["certificate_expiry", "rehearse", "revocations_expiry", "server_context"]
    read.clear()
    for old, new in ((pair.certificate, later.certificate), (pair.key, later.key)):
        copy = new.with_suffix(".copy")
        copy.write_bytes(new.read_bytes())
        copy.chmod(0o600)
        copy.replace(old)
    assert alarms(tls, today()) == []
    assert sorted(read) == ["certificate_expiry", "rehearse", "server_context"]
    read.clear()
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + certificates.READ_AGAIN_S)
    assert alarms(tls, today()) == []
    assert len(read) == 4


def test_a_file_that_could_not_be_read_is_read_at_the_next_look(
    authority: Authority, node: Pair, read: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*given: object) -> object:
        raise OSError("too many open files")

    tls = files(authority, node)
    with monkeypatch.context() as patched:
        patched.setattr(certificates, "certificate_expiry", fails)
        [said] = errors(tls, today())
        assert "does not say until when" in said
    assert list(errors(tls, today())) == []
    tls.key_file.chmod(0o604)
    assert "everybody" in next(errors(tls, today()))
    tls.key_file.chmod(0o600)


def test_what_was_read_of_files_does_not_pile_up(authority: Authority, node: Pair, read: list[str]) -> None:
    for number in range(200):
        list(errors(files(authority, node, handshake_timeout_s=number + 1), today()))
    assert len(certificates._kept) <= 64
