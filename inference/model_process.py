"""One child process that runs models (inference/model_child.py): started, told what to load, asked, ended."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import numpy as np
import structlog
from numpy.typing import NDArray

from inference.errors import SENSELESS, PackageError, ProviderError
from inference.frames import Gone, Said, packed, receive, send
from inference.outputs import Outputs

log = structlog.get_logger()
ROOT: Final = Path(__file__).resolve().parents[1]
PROGRAM: Final = (  # nothing that is imported becomes garbage: without the collector it takes a third less time
    "import gc, sys; gc.disable(); sys.path.insert(0, sys.argv[1]); "
    "from inference.model_child import main; gc.freeze(); gc.enable(); main()"
)
SECRET: Final = ("OPENTRIAGE_", "PG")  # variables that a child has no use for: the ledger's address and password
_ERRORS: Final = {"PackageError": PackageError, "ProviderError": ProviderError}


class ModelFailed(RuntimeError):
    """A model raised; the process that ran it lives."""


class ModelProcess:
    """One child, used by one thread at a time; `load` first. `opened`: what it said of itself; `likeness`: what of that
    another must say too, to do in its place."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", PROGRAM, str(ROOT)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
            env={name: value for name, value in os.environ.items() if not name.startswith(SECRET)},
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._in, self._out = self._process.stdin.fileno(), self._process.stdout.fileno()
        os.set_blocking(self._in, False)
        self.opened: Said = {}
        self.likeness: Said = {}
        self.runs = 0
        self.answered: set[str] = set()  # digests

    def load(self, request: Said, within_s: float) -> None:
        """Raises PackageError, ProviderError as loading does, and Gone when it died of it."""
        try:
            said, _ = self._ask(request, (), within_s)
            if "error" in said:
                raise _ERRORS[said["error"]](said["reason"])
            opened = said["opened"]
            self.likeness = {**opened, "refused": sorted(opened["refused"])}  # not why: that may quote sizes, addresses
            self.opened = opened
        except SENSELESS:
            self.close()
            raise Gone from None
        except BaseException:
            self.close()
            raise

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def run(self, digest: str, images: NDArray[np.float32], within_s: float) -> Outputs:
        """Raises Gone when it died; Late when it gave no answer in time; ModelFailed when the model did not run."""
        self.runs += 1
        tensors = np.ascontiguousarray(images, np.float32)
        said, blobs = self._ask({"digest": digest, "shape": tensors.shape}, [tensors.data], within_s)
        if "failed" in said:
            raise ModelFailed(f"The model failed with {said['failed']}")
        try:
            arrays = [
                np.frombuffer(blob, np.float32).reshape(shape)
                for blob, shape in zip(blobs, said["shapes"], strict=True)
            ]
            scores, features, *places = arrays
            outputs = Outputs(scores, features, dict(zip(said["roles"], places, strict=True)))
        except (KeyError, TypeError, ValueError):
            raise Gone from None
        self.answered.add(digest)
        return outputs

    def ended(self, within_s: float) -> int | None:
        """Its status, if it ends by itself."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self._process.wait(within_s)
        return None

    def kill(self) -> None:
        """From any thread: whoever waits for an answer is told Gone."""
        if self.alive:  # its number may be another's by now
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def close(self) -> None:
        """End it. Safe to call twice."""
        self.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()

    def _ask(self, said: Said, blobs: Iterable[memoryview], within_s: float) -> tuple[Said, list[bytearray]]:
        deadline = time.monotonic() + within_s
        send(self._in, packed(said, list(blobs)), deadline)
        answer, found = receive(self._out, deadline)
        try:
            for event in answer.get("events", ()):
                _relog(event)
        except SENSELESS:
            raise Gone from None
        return answer, found


def _relog(event: dict[str, str]) -> None:
    level, name = event.pop("level"), event.pop("event")
    getattr(log, level if level in ("debug", "info", "warning", "error", "critical") else "info")(name, **event)
