"""Two hundred damaged associations on a live receiver; the same ones each time, as far as threads allow."""

from pathlib import Path

import pytest

from scp.receiver import ENGINES
from tests.fuzz.whole import Fuzzed
from tests.torture.nursery_client import Nursery


@pytest.mark.parametrize("engine", sorted(ENGINES))
def test_whatever_is_sent_the_receiver_answers_or_ends_it_and_is_as_before(engine: str, tmp_path: Path) -> None:
    with Nursery(tmp_path / "nursery") as nursery:
        fuzzed = Fuzzed(nursery, tmp_path / "state", engine, "short")
        fuzzed.some(150)
        tally = fuzzed.judge()
    assert not tally.broken, f"{tally.broken[:5]} after {dict(tally.outcomes)}"
    assert tally.acked
    assert tally.outcomes["A-ABORT"]
