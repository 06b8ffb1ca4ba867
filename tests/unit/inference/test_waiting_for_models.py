"""Which of its waits a host cuts short, by a process that exists only in name."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from inference import model_host
from inference.errors import ModelsGone, Undecided
from inference.frames import Late
from inference.model_host import ModelHost
from inference.patience import ENOUGH, FIRST_LEAST_S, LEAST_S, RUN_S

MODEL = "a" * 64
IMAGE = np.zeros((1, 1, 2, 2), np.float32)


class Answering:
    """Answers at once what it may answer, and writes down for how long it was waited for."""

    waits: list[float]
    hangs = False
    alive, pid, runs = True, 7, 1

    def __init__(self) -> None:
        self.answered: set[str] = set()
        self.likeness: dict[str, Any] = {}

    def load(self, request: Any, within_s: float) -> None:
        pass

    def run(self, digest: str, images: Any, within_s: float) -> Any:
        Answering.waits.append(within_s)
        if Answering.hangs:
            raise Late
        self.answered.add(digest)

    def ended(self, within_s: float) -> None:
        pass

    def close(self) -> None:
        pass

    kill = close


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModelHost]:
    """One that has answered often enough."""
    monkeypatch.setattr(model_host, "ModelProcess", Answering)
    Answering.waits, Answering.hangs = [], False
    made = ModelHost()
    for _ in range(ENOUGH):
        made.run(MODEL, IMAGE)
    assert Answering.waits == [RUN_S] * ENOUGH
    Answering.waits.clear()
    yield made
    made.close()


def hangs(host: ModelHost) -> None:
    Answering.hangs = True
    with pytest.raises(Undecided):
        host.run(MODEL, IMAGE)
    Answering.hangs = False


def test_the_first_answer_of_a_process_is_waited_for_longer(host: ModelHost) -> None:
    hangs(host)
    for _ in range(2):
        host.run(MODEL, IMAGE)
    assert Answering.waits == [LEAST_S, FIRST_LEAST_S, LEAST_S]


def test_what_an_image_took_apart_is_learned_for_all_and_was_not_cut_short(host: ModelHost) -> None:
    """One that was cut short because the machine has become slow tells so by its second try."""
    known = host._patience._answers[MODEL]
    before = len(known)
    apart = host.apart()
    for _ in range(2):
        apart.run(MODEL, IMAGE)
    host.run(MODEL, IMAGE, patient=True)
    assert Answering.waits == [RUN_S] * 3
    assert len(known) == before + 3


def test_hangs_without_end_are_no_images_fault(host: ModelHost) -> None:
    for _ in range(model_host.DEATHS_MAX - 1):
        hangs(host)
    Answering.hangs = True
    with pytest.raises(ModelsGone, match="5 times"):
        host.run(MODEL, IMAGE)
