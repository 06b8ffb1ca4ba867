"""Look at instances and decide: header -> route -> gate -> pixels -> model -> findings -> priority.

Nothing in an instance makes `analyse` raise: each ends in results with a status and a reason. One package that fails
never stops another, and one instance never another.
"""

import copy
import hashlib
import io
import os
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path

import numpy as np
import structlog
from numpy.typing import NDArray
from PIL import Image

from config.settings import Settings
from inference.abstain import doubtful_labels, weighed
from inference.dcmtk import find_dcmtk
from inference.decide import decide
from inference.errors import CannotLook, LostInModel
from inference.gate import check_features, check_header, check_pixels
from inference.header import HeaderFacts
from inference.manifest import InputSpec, Window
from inference.opened import Opened, Session
from inference.outputs import Outputs
from inference.package import Package, Refused, check_enough
from inference.results import Results
from inference.route import NotMeantFor, meant_for, route
from inference.sandbox import DecodeChild, Decoded, DecodePool, Wanted
from inference.tasks import SeenImage, reader
from inference.tensor import to_tensor
from ledger.errors import RetryableError
from ledger.records import ImageResult, TriagePriority
from ledger.store import Store

log = structlog.get_logger()
DISPLAY_SIDE = 1024
MAX_CHILDREN = 4
Opener = Callable[[Sequence[Package], Settings], Opened]
UNKNOWN_PART = NotMeantFor(
    "body_part_unknown", "The body part is unknown and the pixels are unlike the model's images."
)


@dataclass(frozen=True)
class Source:
    """A file to look at. as_kind: what a PNG or JPEG shows ("chest-xray", or MODALITY/BODY PART[/VIEW]), which has no
    header but the age told here; a DICOM file speaks for itself."""

    path: Path
    as_kind: str | None = None
    age_years: float | None = None
    received_at: datetime | None = None


@dataclass(frozen=True)
class Looked:
    """What came of one source: its header's UIDs (None where unreadable) and at least one result.

    loss: why a model's word on it is missing that another process may still have: it was lost, or so was an image
    beside it."""

    path: Path
    study_instance_uid: str | None
    series_instance_uid: str | None
    sop_instance_uid: str | None
    modality: str | None
    results: tuple[ImageResult, ...]
    loss: LostInModel | None = None


@dataclass
class _Prepared:
    """One source on its way. `tensors`: what each routed package may look at; `results`: what is already said."""

    source: Source
    facts: HeaderFacts = field(default_factory=HeaderFacts)
    results: list[ImageResult] = field(default_factory=list)
    tensors: dict[str, NDArray[np.float32]] = field(default_factory=dict)  # digest -> (1, H, W)
    pending: dict[str, CannotLook] = field(default_factory=dict)  # digest -> what the header says against looking
    decoded: Decoded | None = None
    prepared_ms: float = 0.0
    loss: LostInModel | None = None

    @property
    def shape(self) -> tuple[int, int] | None:
        return (self.decoded.rows, self.decoded.columns) if self.decoded else None


class Analyser:
    """Sessions and decode children for one process. Use from one thread at a time.

    refused: packages that could not be loaded; `self.refused` has those that do not behave too. below: the folders that
    sources lie in; none: anywhere. opener: loads the models; None: in this process. Raises ProviderError,
    and PackageError when the refused leave nothing to serve with or the settings name one of them.
    """

    def __init__(
        self,
        settings: Settings,
        packages: Sequence[Package],
        store: Store | None = None,
        children: int | None = None,
        refused: Sequence[Refused] = (),
        below: Sequence[Path] = (),
        opener: Opener | None = None,
    ) -> None:
        self._settings = settings
        self._store = store
        self._results = Results(settings.results_hash, settings.recommend.not_assessed)
        opened = (opener or _in_this_process)(packages, settings)
        self._sessions = opened.sessions
        self._packages = tuple(package for package in packages if package.digest in opened.sessions)
        self.refused = (*refused, *opened.refused)
        check_enough(self._packages, self.refused, settings.look)
        self.provider, self.degraded = opened.computing.provider, opened.computing.degraded
        size = children or max(1, min(MAX_CHILDREN, os.cpu_count() or 1))
        dcmtk = find_dcmtk(settings.look)
        log.info("dcmtk", program=str(dcmtk.path or ""), version=dcmtk.version, what=dcmtk.sentence)
        self._pool = DecodePool(settings.look, size, dcmtk.path, below)
        self._threads = ThreadPoolExecutor(size, thread_name_prefix="decode")
        list(self._threads.map(DecodeChild.start, self._pool.children))

    def analyse(self, sources: Sequence[Source]) -> list[Looked]:
        """Results in the order of the sources; never raises for bad input. Raises ModelsGone."""
        prepared = list(self._threads.map(self._prepare, sources))
        for package in self._packages:
            waiting = [item for item in prepared if package.digest in item.tensors and item.loss is None]
            step = self._at_once(package)
            for start in range(0, len(waiting), step):
                self._run(package, waiting[start : start + step])
        return [_looked(item) for item in prepared]

    def by(self, sessions: Mapping[str, Session]) -> "Analyser":
        """This one, decode children and all, with other sessions of the same models."""
        other = copy.copy(self)
        other._sessions = sessions
        return other

    @property
    def models(self) -> list[str]:
        """Name and version of each package that serves."""
        return [f"{package.manifest.name} {package.manifest.version}" for package in self._packages]

    def close(self) -> None:
        """End the children. Safe to call twice."""
        self._threads.shutdown()
        self._pool.close()

    def _at_once(self, package: Package) -> int:
        """Images that a model would not compute side by side go to it one after another: one that kills it takes along
        no other that waits."""
        return min(self._settings.look.batch_max, self._sessions[package.digest].together)

    def _prepare(self, source: Source) -> _Prepared:
        """Everything before the model, in a decode thread."""
        began = time.perf_counter()
        item = _Prepared(source)
        child = self._pool.borrow()
        try:
            self._look(item, child)
        except CannotLook as refusal:
            item.results.append(self._results.failed(item.facts, None, None, refusal.reason_code, refusal.reason))
        except Exception as error:  # the thread's loop top: one instance's trouble is its own
            log.exception("look_failed", error=type(error).__name__)
            item.results.append(self._results.failed(item.facts, item.shape))
        finally:
            self._pool.give_back(child)
        item.prepared_ms = (time.perf_counter() - began) * 1000.0
        item.results = [replace(result, duration_ms=item.prepared_ms) for result in item.results]
        return item

    def _look(self, item: _Prepared, child: DecodeChild) -> None:
        """Raises CannotLook when the header cannot be read: then nobody knows whether a model is meant for it."""
        source = item.source
        item.facts = child.look(source.path, source.as_kind, source.age_years)
        missed = [one for one in self.refused if one.manifest and meant_for(item.facts, one.manifest.reads)]
        item.results += [self._results.package_refused(item.facts, one) for one in missed]
        routing = route(item.facts, self._packages)
        if routing.nobody and not missed:
            item.results.append(self._results.no_model(item.facts))
        elif not routing.packages and not missed:
            item.results.append(self._results.not_applicable(item.facts, item.shape, routing.otherwise))
        allowed = [package for package in routing.packages if self._allowed(item, package)]
        if allowed:
            self._decode(item, allowed, child)

    def _allowed(self, item: _Prepared, package: Package) -> bool:
        """Ask the header. Where no body part is named, its answer waits for what the pixels are: a hand of unknown
        age is nobody's to assess, a chest of unknown age is."""
        try:
            check_header(item.facts, package.manifest, self._settings.look.unknown_age)
        except CannotLook as refusal:
            if item.facts.body_part is not None or not item.facts.has_pixels or package.distribution is None:
                item.results.append(self._results.refused(item.facts, item.shape, package, refusal))
                return False
            item.pending[package.digest] = refusal
        return True

    def _decode(self, item: _Prepared, packages: list[Package], child: DecodeChild) -> None:
        try:
            decoded = child.decode(
                tuple(_wanted(p.manifest.input) for p in packages), DISPLAY_SIDE if self._store else 0
            )
        except CannotLook as refusal:
            item.results += [self._results.refused(item.facts, item.shape, package, refusal) for package in packages]
            return
        item.decoded = decoded
        for package, picture, span in zip(packages, decoded.pictures, decoded.spans, strict=True):
            if isinstance(picture, CannotLook):
                item.results.append(self._results.refused(item.facts, item.shape, package, picture))
            elif self._passes(item, package, lambda span=span: check_pixels(span)):  # type: ignore[misc]
                item.tensors[package.digest] = to_tensor(picture, package.manifest.input)

    def _passes(self, item: _Prepared, package: Package, check: Callable[[], None]) -> bool:
        try:
            check()
        except CannotLook as refusal:
            item.results.append(self._results.refused(item.facts, item.shape, package, refusal))
            return False
        return True

    def _run(self, package: Package, items: list[_Prepared]) -> None:
        began = time.perf_counter()
        try:
            outputs = self._computed(package, np.stack([item.tensors[package.digest] for item in items]))
        except LostInModel as error:
            for item in items:
                item.loss = error
                item.results.append(self._results.failed(item.facts, item.shape, package, "process_lost", f"{error}."))
            return
        except RetryableError:
            raise  # no image's trouble: there are no models, or it is not its turn
        except Exception as error:  # the model's loop top: another package may still speak
            log.exception("model_run_failed", model=package.key, error=type(error).__name__)
            for item in items:
                item.results.append(self._results.failed(item.facts, item.shape, package))
            return
        model_ms = (time.perf_counter() - began) * 1000.0
        finite = outputs.finite()
        for i, item in enumerate(items):
            began = time.perf_counter()
            distance = _distance(package, outputs.features[i]) if finite[i] else None
            if finite[i]:
                result = self._judge_safely(item, package, outputs, i, distance)
            else:
                result = self._not_finite(item, package)
            spent_ms = (time.perf_counter() - began) * 1000.0
            spent_ms += item.prepared_ms + model_ms
            said = replace(result, duration_ms=spent_ms, ood_distance=distance)
            words = self._sessions[package.digest].words
            item.results.append(replace(said, computed_by=words, degraded=self.degraded))

    def _computed(self, package: Package, images: NDArray[np.float32]) -> Outputs:
        return self._sessions[package.digest].run(images)

    def _not_finite(self, item: _Prepared, package: Package) -> ImageResult:
        return self._results.failed(
            item.facts, item.shape, package, "output_not_finite", "The model returned numbers that are not finite."
        )

    def _judge_safely(
        self, item: _Prepared, package: Package, outputs: Outputs, i: int, distance: float | None
    ) -> ImageResult:
        try:
            return self._judge(item, package, outputs, i, distance)
        except OSError:
            raise  # the store takes no picture: the disk's trouble, not the image's
        except Exception as error:  # one image's trouble with one package is nobody else's
            log.exception("judge_failed", model=package.key, error=type(error).__name__)
            return self._results.failed(item.facts, item.shape, package)

    def _judge(
        self, item: _Prepared, package: Package, outputs: Outputs, i: int, distance: float | None
    ) -> ImageResult:
        """One package's word on one image."""
        settings = self._settings
        if distance is not None:
            try:
                check_features(distance, package.manifest)
            except CannotLook as refusal:
                if item.facts.body_part is None:
                    return self._results.not_applicable(item.facts, item.shape, UNKNOWN_PART)
                return self._results.refused(item.facts, item.shape, package, refusal)
        if package.digest in item.pending:
            return self._results.refused(item.facts, item.shape, package, item.pending[package.digest])
        manifest, scores = package.manifest.at_age(item.facts.age_years), outputs.scores[i]
        said = reader(manifest).read(
            SeenImage(manifest, settings.decide, scores, outputs.place(i), item.shape or (1, 1), self._store)
        )
        may_raise = manifest.may_raise_priority and manifest.segmentation is None  # a slice by itself raises nothing
        try:
            findings, decision = weighed(
                said.findings,
                doubtful_labels(manifest, scores, distance),
                lambda found: decide(found, item.facts.body_part, may_raise, settings.decide, settings.recommend),
            )
        except CannotLook as refusal:
            refused = self._results.refused(item.facts, item.shape, package, refusal)
            return replace(refused, findings=said.findings, masks=said.masks)
        flagged = decision.priority in (TriagePriority.HIGH, TriagePriority.MEDIUM)
        group = package.manifest.group_at(item.facts.age_years)
        return replace(
            self._results.analysed(item.facts, item.shape, package, decision.priority),
            findings=findings,
            masks=said.masks,
            critical_flags=decision.critical_flags,
            recommendations=decision.recommendations,
            display_path=self._keep_display(item) if flagged else None,
            may_raise=may_raise,
            age_group=group.name if group else "",
        )

    def _keep_display(self, item: _Prepared) -> str | None:
        if self._store is None or item.decoded is None or item.decoded.display is None:
            return None
        content = png(item.decoded.display)
        return self._store.put("pictures", hashlib.sha256(content).hexdigest(), ".png", content)


def _in_this_process(packages: Sequence[Package], settings: Settings) -> Opened:
    from inference.session import load  # the runtimes: tens of MB that nobody needs who computes elsewhere

    return load(packages, settings)


def _distance(package: Package, features: NDArray[np.float32]) -> float | None:
    """features: (C,) of one image. How far from those seen in training; None where the package has no gate."""
    return None if package.distribution is None else float(package.distribution.distance(features[np.newaxis])[0])


def png(display: NDArray[np.uint8]) -> bytes:
    """display: (h, w) uint8, larger = brighter. Returns a greyscale PNG."""
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(display), mode="L").save(buffer, "PNG", compress_level=3)
    return buffer.getvalue()


def _wanted(spec: InputSpec) -> Wanted:
    window = (spec.window.center, spec.window.width) if isinstance(spec.window, Window) else spec.window
    return Wanted(window, spec.height, spec.width, spec.fit)


def _looked(item: _Prepared) -> Looked:
    facts = item.facts
    source_sha256 = item.decoded.source_sha256 if item.decoded else ""
    return Looked(
        item.source.path,
        facts.study_instance_uid,
        facts.series_instance_uid,
        facts.sop_instance_uid,
        facts.modality,
        tuple(replace(result, source_sha256=source_sha256) for result in item.results),
        item.loss,
    )
