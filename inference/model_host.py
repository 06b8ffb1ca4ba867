"""The other side of inference/model_child.py: start the process that runs the models, ask it, and outlive it.

A host has one process at work. With a spare a second one waits, the same models loaded, to take over when the first
dies of an image: then nobody waits for models to load. Both must be what the first was, to the last word: where one
cannot be had (a card is lost, a package was replaced), `ModelsGone` sends whoever asked to start anew, which is where
all such things are weighed and told.
"""

import contextlib
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import structlog
from numpy.typing import NDArray

from config import Settings
from inference.errors import LostInModel, ModelsGone, PackageError, ProviderError, Undecided
from inference.frames import Gone, Late, Said
from inference.metrics import MODEL_PROCESSES_LOST, How
from inference.model_process import ModelFailed, ModelProcess
from inference.opened import Computing, Opened
from inference.outputs import Outputs
from inference.package import Package, Refused
from inference.patience import Allowed, Patience

log = structlog.get_logger()
LOAD_S: Final = 1200.0  # TensorRT's first start takes minutes
AGAIN_S, AGAIN_TIMES = 60.0, 5  # loading what was loaded before: at least so long, or so many times what it took then
SPARE_FIRST_S: Final = 10.0  # after the start, which has enough to do
SPARE_AFTER_S: Final = 2.0  # one took over: the processor belongs to those who wait first
SPARE_AGAIN_S: Final = 60.0  # doubled as often as it fails
SPARE_AGAIN_MAX_S: Final = 3600.0
SPARE_LOOK_S: Final = 5.0  # whether it still lives
DYING_S: Final = 0.5
DIED: Final = "The process that runs the models died while it looked at this image"
FAILED_MAX: Final = 2  # runs in succession: one may be its image's fault, of two the process is suspect
DEATHS_MAX: Final = 5
DEATHS_WITHIN_S: Final = 600.0


@dataclass(frozen=True)
class HostedSession:
    """One package, loaded in a host's process. Raises LostInModel, ModelsGone. patient: see ModelHost.run."""

    host: "ModelHost"
    digest: str
    words: str
    together: int
    patient: bool = False

    def run(self, images: NDArray[np.float32]) -> Outputs:
        return self.host.run(self.digest, images, self.patient)


class ModelHost:
    """`open` first; then `run` from any thread. lowly: at a lower priority of the processor, for what may wait."""

    def __init__(self, spare: bool = False, lowly: bool = False) -> None:
        self._with_spare, self._nice = spare, 10 if lowly else 0
        self.on_spare: Callable[[str], None] = lambda why: None  # why there is none now; empty: there is one
        self._request: Said = {}
        self._expected: Said = {}
        self._load_s = LOAD_S
        self._process: ModelProcess | None = None
        self._spare: ModelProcess | None = None
        self._own: list[ModelProcess] = []  # both, and what is being loaded
        self._apart: list[ModelHost] = []
        self._spare_due = 0.0  # time.monotonic()
        self._spare_again_s = SPARE_AGAIN_S
        self._loading = False
        self._deaths: list[float] = []
        self._failed = 0  # runs in succession
        self._patience = Patience()
        self._used = threading.Lock()
        self._changed = threading.Condition()
        self._closed = False

    def open(self, packages: Sequence[Package], settings: Settings) -> Opened:
        """Load them in a process. Raises PackageError, ProviderError; ModelsGone when loading kills the process."""
        self._request = {
            "nice": self._nice,
            "packages": [[str(package.folder.absolute()), package.digest] for package in packages],
            "settings": {
                "look": settings.look.model_dump(mode="json"),
                "node": {"state_dir": str(settings.node.state_dir.absolute())},
            },
        }
        began = time.monotonic()
        try:
            self._process = self._new()
        except Gone:
            raise ModelsGone("The process that runs the models died while it loaded them") from None
        said, self._expected = self._process.opened, self._process.likeness
        self._load_s = min(LOAD_S, max(AGAIN_S, AGAIN_TIMES * (time.monotonic() - began)))
        if self._with_spare:
            self._spare_due = time.monotonic() + SPARE_FIRST_S
            threading.Thread(target=self._keep_spare, name="spare", daemon=True).start()
        by_digest = {package.digest: package for package in packages}
        refused = (Refused(by_digest[d].folder, why, by_digest[d].manifest, d) for d, why in said["refused"].items())
        return Opened(self.sessions(), Computing(said["provider"], said["wished"]), tuple(refused))

    def sessions(self, patient: bool = False) -> dict[str, HostedSession]:
        """By their package's digest."""
        told: dict[str, Any] = self._expected["sessions"]
        return {digest: HostedSession(self, digest, words, n, patient) for digest, (words, n) in told.items()}

    def apart(self) -> "ModelHost":
        """A host of the same models, with a process of its own from its first `run` to its `rest`. It cuts nothing
        short, and what it says of an image is the last word."""
        other = ModelHost(lowly=True)
        other._request, other._expected = {**self._request, "nice": other._nice}, self._expected
        other._load_s, other._patience = self._load_s, self._patience
        self._apart.append(other)
        return other

    def run(self, digest: str, images: NDArray[np.float32], patient: bool = False) -> Outputs:
        """Raises LostInModel when the process is lost to these images; the next ones have another. Undecided when that,
        or a failure, says nothing of them. ModelFailed, ModelsGone. patient: cut nothing short, this is the last word.
        """
        with self._used:
            return self._run(digest, images, patient or bool(self._nice))

    def _run(self, digest: str, images: NDArray[np.float32], patient: bool) -> Outputs:
        process = self._process
        if process is None or not process.alive:
            process = self._process = self._next()
        is_first = digest not in process.answered
        allowed = self._patience.all() if patient else self._patience.allowed(digest, len(images), is_first)
        began = time.monotonic()
        try:
            outputs = process.run(digest, images, allowed.within_s)
        except Late:
            raise self._late(process, len(images), allowed) from None
        except Gone:
            raise self._lost(process, len(images), "died", DIED) from None
        except ModelFailed as error:
            return self._failing(error, process, digest, images, patient)
        self._patience.answered(digest, len(images), time.monotonic() - began)
        self._failed = 0
        return outputs

    def _late(self, process: ModelProcess, images: int, allowed: Allowed) -> LostInModel:
        """It may hang, of these images or not; or it was stopped, or the machine is slower than it was."""
        how: How = "cut" if allowed.is_learned else "hung"
        lost = self._lost(process, images, how, allowed.sentence, waited_s=round(allowed.within_s, 2))
        return Undecided(allowed.sentence) if allowed.is_learned else lost

    def _failing(
        self, error: ModelFailed, process: ModelProcess, digest: str, images: NDArray[np.float32], patient: bool
    ) -> Outputs:
        """A process that lives may be sick for good: of a leak, of a card that was reset. The second failure in
        succession ends it; none says anything of its images. Apart, a fresh one has the last word."""
        self._failed += 1
        if self._nice and process.runs > 1:
            process.close()
            return self._run(digest, images, patient)
        if self._failed >= FAILED_MAX and not self._nice:
            lost = self._lost(process, len(images), "failed", f"{error}")
            raise lost if patient else Undecided(f"{error}")
        raise error if patient else Undecided(f"{error}")

    def _lost(self, process: ModelProcess, images: int, how: How, why: str, **told: float) -> LostInModel:
        self._process, self._failed = None, 0
        status = process.ended(DYING_S if how == "died" else 0.0)
        process.close()
        MODEL_PROCESSES_LOST.labels(how).inc()
        event = "model_process_died" if how == "died" else "model_process_ended"
        log.error(event, pid=process.pid, how=how, status=status, images=images, **told)
        self._weigh_death()
        return LostInModel(why)

    def _weigh_death(self) -> None:
        """So many at once are no image's fault, and not to be outlived in silence. Raises ModelsGone. Apart, where all
        that comes is suspect, each is its image's."""
        now = time.monotonic()
        self._deaths = [at for at in self._deaths if now - at < DEATHS_WITHIN_S] + [now]
        if len(self._deaths) >= DEATHS_MAX and not self._nice:
            raise ModelsGone(f"The process that runs the models died {len(self._deaths)} times in ten minutes")

    def warm(self) -> None:
        """What `run` would load, loaded before. Where it cannot be had, `run` will say so."""
        with self._used, contextlib.suppress(ModelsGone):
            if self._process is None and not self._closed:
                self._process = self._next()

    def rest(self) -> None:
        """End what runs, until the next `run`."""
        with self._used:
            if self._process is not None:
                self._process.close()
            self._process = None

    def close(self) -> None:
        """End all, be they at work: that is lost. Nothing is loaded any more. Safe to call twice."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            spare, self._spare = self._spare, None
        self.kill()
        if spare is not None:
            spare.close()
        self.rest()

    def kill(self) -> None:
        """Of this host and of those apart from it; waits for nobody."""
        for process in tuple(self._own):
            process.kill()
        for other in self._apart:
            other.kill()

    def _new(self) -> ModelProcess:
        """Raises Gone, PackageError, ProviderError, ModelsGone."""
        process = ModelProcess()
        with self._changed:
            self._own = [*(one for one in self._own if one.alive), process]
            closed = self._closed
        if closed:
            process.close()
            raise ModelsGone("The models are not loaded any more: the role ends")
        process.load(self._request, self._load_s)
        return process

    def _next(self) -> ModelProcess:
        """What takes over: the spare, be it that it still loads; else one that is loaded now. Raises ModelsGone."""
        if self._process is not None:
            self._process.close()  # it died between two batches
        with self._changed:
            while self._loading:
                self._changed.wait()
            spare, self._spare = self._spare, None
            self._spare_due = time.monotonic() + SPARE_AFTER_S
            self._changed.notify_all()
        if spare is not None and spare.alive:
            log.info("model_process_takes_over", pid=spare.pid)
            return spare
        return self._same()

    def _same(self) -> ModelProcess:
        """A new one that is what the first was. Raises ModelsGone."""
        try:
            process = self._new()
        except (Gone, PackageError, ProviderError, OSError) as error:
            raise ModelsGone(f"The models could not be loaded again: {error or 'the process died'}") from None
        if process.likeness != self._expected:
            process.close()
            raise ModelsGone("The models could not be loaded again as they were")
        return process

    def _keep_spare(self) -> None:
        while self._spare_is_missing():
            found: ModelProcess | None = None
            why = ""
            try:
                found = self._same()
                log.info("spare_model_process_ready", pid=found.pid)
            except ModelsGone as error:
                why = str(error)
                log.warning("spare_model_process_failed", reason=why)
            finally:
                self._put_by(found)
            if not self._closed:
                self.on_spare(why)

    def _spare_is_missing(self) -> bool:
        """Wait until one is due, and mark it as loading; False at the end."""
        with self._changed:
            while not self._closed:
                if self._spare is not None and not self._spare.alive:
                    self._spare.close()
                    self._spare = None
                left_s = SPARE_LOOK_S if self._spare else self._spare_due - time.monotonic()
                if left_s <= 0:
                    self._loading = True
                    return True
                self._changed.wait(left_s)
        return False

    def _put_by(self, found: ModelProcess | None) -> None:
        with self._changed:
            self._loading = False
            if self._closed and found is not None:
                found.close()
            else:
                self._spare = found
            self._spare_again_s = SPARE_AGAIN_S if found else min(SPARE_AGAIN_MAX_S, 2 * self._spare_again_s)
            self._spare_due = time.monotonic() + self._spare_again_s
            self._changed.notify_all()
