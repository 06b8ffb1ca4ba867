"""What is run in a process of models before it begins: pictures that no model is made for do to it what a bug in native
code would. By the mean of the tensor: it dies, gives no answer, takes all memory, raises, is sick from then on, or is
sick once it has answered."""

import os
import signal
import threading
from typing import Any

import numpy as np

from inference.session import ModelSession
from tests.support.packages import SIDE

DIES, HANGS, SWALLOWS, RAISES, SICKENS, INFECTS = 0.95, 0.85, 0.75, 0.65, 0.55, 0.45
NEAR = 0.02
MEMORY = 8 << 30

_run = ModelSession.run
_sick = threading.Event()


def picture(kind: float) -> Any:
    """(1, SIDE, SIDE) float32."""
    return np.full((1, SIDE, SIDE), kind, np.float32)


def deadly(session: ModelSession, images: Any) -> Any:
    for mean in images.mean(axis=(1, 2, 3)):
        if abs(mean - DIES) < NEAR:
            os.kill(os.getpid(), signal.SIGSEGV)
        if abs(mean - HANGS) < NEAR:
            threading.Event().wait()
        if abs(mean - SWALLOWS) < NEAR:
            np.empty(MEMORY, np.uint8)
        if abs(mean - RAISES) < NEAR:
            raise ValueError("SENTINEL")
        if abs(mean - SICKENS) < NEAR:
            _sick.set()
    if _sick.is_set():
        raise RuntimeError("CUDA error: SENTINEL")
    if any(abs(mean - INFECTS) < NEAR for mean in images.mean(axis=(1, 2, 3))):
        _sick.set()
    return _run(session, images)


def install() -> None:
    """In this process, for good."""
    ModelSession.run = deadly  # type: ignore[method-assign]
