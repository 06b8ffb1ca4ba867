"""An engine shows that it takes callers, whether anybody calls or not, and shows no more once it does not."""

import threading
import time

import pytest

from scp.network.engine import SIGN_EVERY_S
from scp.receiver import ENGINES
from tests.support.bare_engines import bare_engine
from tests.support.rawscu import RawScu
from tests.support.waiting import wait_until


@pytest.mark.parametrize("kind", sorted(ENGINES))
def test_the_accepting_thread_shows_that_it_lives(kind: str) -> None:
    shown: list[float] = []
    with bare_engine(kind, accepts=lambda: shown.append(time.monotonic())) as engine:
        begun = time.monotonic()
        wait_until(lambda: shown and shown[-1] - begun >= 2 * SIGN_EVERY_S, 20)
        with RawScu(engine.address) as scu:
            assert scu.echo() == 0
            scu.release()
        shown_so_far = len(shown)
        wait_until(lambda: len(shown) > shown_so_far, 20)
        engine.stop(0.0)
        assert not [thread for thread in threading.enumerate() if thread.name == "scp-accept"]
        after = len(shown)
    assert len(shown) == after


def test_an_engine_whose_accepting_thread_hangs_goes_on_with_what_it_has_and_ends() -> None:
    hangs, stuck, over = threading.Event(), threading.Event(), threading.Event()

    def accepts() -> None:
        if hangs.is_set():
            stuck.set()
            over.wait()

    try:
        with bare_engine("native", accepts=accepts) as engine, RawScu(engine.address) as scu:
            hangs.set()
            assert stuck.wait(20)
            draining = threading.Thread(target=engine.drain, args=(60.0,))
            draining.start()
            assert scu.echo() == 0
            scu.release()
            draining.join(20)
            assert not draining.is_alive()
    finally:
        over.set()
