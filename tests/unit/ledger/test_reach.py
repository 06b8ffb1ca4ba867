"""What a process must reach for the ledger's sake, told from its URL alone."""

from pathlib import Path

import pytest

from ledger import reach


@pytest.mark.parametrize(
    ("url", "ports", "names", "plain"),
    [
        ("postgresql+psycopg://me@10.1.2.3/x", (5432,), False, True),
        ("postgresql+psycopg://me@db.example:6432/x?sslmode=verify-full", (6432,), True, False),
        ("postgresql+psycopg://me@[::1]:6000/x", (6000,), False, False),
        ("postgresql+psycopg://me@/x?host=/var/run/postgresql", (), False, False),
        ("postgresql+psycopg://me@/x?host=10.0.0.1:5433&host=10.0.0.2:5434", (5432, 5433, 5434), False, True),
        ("sqlite:////var/lib/x/ledger.sqlite", (), False, False),
    ],
)
def test_ports_and_names(url: str, ports: tuple[int, ...], names: bool, plain: bool) -> None:
    found = reach.of(url)
    assert (found.ports, found.names, reach.is_plain(url)) == (ports, names, plain)


def test_files_of_sqlite_and_of_a_servers_client() -> None:
    assert [path.name for path in reach.of("sqlite:////x/l.sqlite").files] == [
        "l.sqlite",
        "l.sqlite-wal",
        "l.sqlite-shm",
    ]
    assert reach.of("postgresql+psycopg://h/x?sslrootcert=/etc/ca.pem").reads == (Path("/etc/ca.pem"),)


def test_a_held_ledger_keeps_its_log(tmp_path: Path) -> None:
    """Without it the last connection that closes takes the log away, and its successor is another file."""
    url = f"sqlite:///{tmp_path / 'l.sqlite'}"
    held = reach.hold(url)
    assert held is not None
    before = (tmp_path / "l.sqlite-wal").stat().st_ino
    other = reach.hold(url)
    assert other is not None
    other.execute("CREATE TABLE t (x)")
    other.close()
    assert (tmp_path / "l.sqlite-wal").stat().st_ino == before
    held.close()
    assert not (tmp_path / "l.sqlite-wal").exists()
