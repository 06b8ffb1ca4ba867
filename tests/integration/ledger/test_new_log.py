"""A start does not go on with the log of the process before it: a sync of that may have failed."""

from pathlib import Path

from tests.support.ledgers import admit, open_fresh

SALTS = slice(16, 24)  # of the header of a write-ahead log, which only a new one changes


def test_a_start_puts_the_log_into_the_database_and_begins_a_new_one(tmp_path: Path) -> None:
    before = open_fresh(tmp_path)
    admit(before, 1)
    log = tmp_path / "ledger.sqlite-wal"
    salts = log.read_bytes()[SALTS]
    after = open_fresh(tmp_path)
    after.reconcile()
    admit(after, 2)
    assert log.read_bytes()[SALTS] != salts
    assert after.counts()["instances"] == {"analyse": 2}
    before.close()
    after.close()
