"""How long a model is waited for: learned from what its answers take on this machine, for a run that never ends holds
up everybody behind it.

So many times the slowest of the recent answers, in proportion where more images were asked about than then; until
enough answers are known, RUN_S. It may be wrong: the machine was asleep, swapped out, or has become slower. Whoever
cuts a run short therefore says nothing of its images: they get RUN_S once more, where nobody waits behind them, and
what that takes is learned from too.
"""

import threading
from collections import deque
from dataclasses import dataclass
from typing import Final

RUN_S: Final = 120.0  # of one request; the slowest that was seen takes a hundredth
ENOUGH: Final = 20  # answers of this model
RECENT: Final = 64
TIMES: Final = 20.0
LEAST_S: Final = 5.0  # a process that is stopped, or waits for a disk, is not yet a process that hangs
FIRST_LEAST_S: Final = 15.0  # a spare that waited for days may have to be fetched from the disk


@dataclass(frozen=True)
class Allowed:
    """slowest_s: the answer that it was learned from, in proportion; None: the model may have all the time there is."""

    within_s: float
    slowest_s: float | None = None

    @property
    def is_learned(self) -> bool:
        return self.slowest_s is not None

    @property
    def sentence(self) -> str:
        """Of a model that did not answer, without its full stop."""
        waited = f"The model gave no answer in {_seconds(self.within_s)}"
        if self.slowest_s is None:
            return waited
        return f"{waited}, and its last answers took {_seconds(self.slowest_s)} at most"


class Patience:
    """With the models of one role, by their packages' digests, from any thread. Begins anew with every load of them."""

    def __init__(self) -> None:
        self._answers: dict[str, deque[tuple[int, float]]] = {}
        self._lock = threading.Lock()

    def answered(self, digest: str, images: int, took_s: float) -> None:
        """What one request took from the question to the whole answer."""
        with self._lock:
            self._answers.setdefault(digest, deque(maxlen=RECENT)).append((images, took_s))

    def allowed(self, digest: str, images: int, is_first: bool) -> Allowed:
        """For one request. is_first: its process has not answered for this model yet."""
        with self._lock:
            known = tuple(self._answers.get(digest, ()))
        if len(known) < ENOUGH:
            return Allowed(RUN_S)
        slowest_s = max(took_s * max(1.0, images / before) for before, took_s in known)
        within_s = max(TIMES * slowest_s, FIRST_LEAST_S if is_first else LEAST_S)
        return Allowed(within_s, slowest_s) if within_s < RUN_S else Allowed(RUN_S)

    def all(self) -> Allowed:
        """For what was cut short before, or is looked at where nobody waits behind it."""
        return Allowed(RUN_S)


def _seconds(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.2g} s"
