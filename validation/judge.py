"""Put files through the node's own code path (inference.analyser) and line up what it said as arrays."""

import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import compress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from rich.progress import track

from config.settings import LookSettings, Settings
from inference.analyser import Analyser, Source
from inference.package import Package, load_package
from ledger.records import Finding, ImageResult, ResultStatus, TriagePriority
from ledger.store import Store

CHUNK = 16
MISSING = ImageResult(ResultStatus.FAILED, "There is no such file.", "file_missing", TriagePriority.NOT_ASSESSED)
NOBODY = ImageResult(ResultStatus.NOT_APPLICABLE, "No model package is meant for it.", "no_model", None)
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Judged:
    """What the node said of N images about one label; NaN where it did not look. `reasons`: "" or the reason code."""

    score: Floats
    probability: Floats
    sd: Floats
    mutual_information: Floats
    distance: Floats
    operating_point: Floats
    present: NDArray[np.bool_]
    reasons: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.reasons)

    @property
    def refused(self) -> NDArray[np.bool_]:
        """Not looked at, for whatever reason: failed, not assessed or not applicable."""
        return np.array([bool(reason) for reason in self.reasons], bool)

    def where(self, chosen: NDArray[np.bool_]) -> "Judged":
        """The images chosen, in order."""
        arrays = {name: getattr(self, name)[chosen] for name in _ARRAYS}
        return replace(self, **arrays, reasons=tuple(self.reasons[i] for i in np.flatnonzero(chosen)))

    def doubts(self) -> dict[str, Floats]:
        """Figures of doubt by the name a manifest gives them, greater is more doubtful; without those it has not.

        Predictive entropy is not among them: for one label it orders images exactly as maximum probability does.
        """
        p = self.probability
        figures = {
            "sd": self.sd,
            "mutual_information": self.mutual_information,
            "max_probability": 1.0 - np.maximum(p, 1.0 - p),
            "distance": self.distance,
        }
        return {name: values for name, values in figures.items() if np.isfinite(values).all()}


_ARRAYS = ("score", "probability", "sd", "mutual_information", "distance", "operating_point", "present")


class Judge:
    """One package behind the node's analyser.

    settings: the site's, whose thresholds then count; without them the defaults, on the CPU. `threads` 0 takes every
    core. store: where masks of a segmentation package go. Raises PackageError and ProviderError.
    """

    def __init__(
        self,
        package: Path | Package,
        threads: int = 0,
        settings: Settings | None = None,
        store: Store | None = None,
    ) -> None:
        self.package = package if isinstance(package, Package) else load_package(package)
        self.manifest = self.package.manifest
        self.settings = settings or Settings(look=LookSettings(threads=threads, provider="cpu"))
        self._analyser = Analyser(self.settings, (self.package,), store, children=2)
        self.provider, self.degraded = self._analyser.provider, self._analyser.degraded

    def close(self) -> None:
        self._analyser.close()

    def look(self, sources: Sequence[Source], tick: Callable[[int], None] = lambda _: None) -> list[ImageResult]:
        """One result for each source; a missing or broken file has one that says so. tick: called with images done."""
        results: list[ImageResult] = []
        for start in range(0, len(sources), CHUNK):
            chunk = sources[start : start + CHUNK]
            there = [source.path.is_file() for source in chunk]
            said = iter(self._analyser.analyse(list(compress(chunk, there))))
            results += [next(iter(next(said).results), NOBODY) if is_there else MISSING for is_there in there]
            tick(len(chunk))
        return results

    def files(self, paths: Sequence[Path], ages: Sequence[float | None], label: str, what: str) -> Judged:
        """PNG, JPEG or DICOM files; ages in years count for pictures only, which have no header."""
        sources = [Source(path, "chest-xray", age) for path, age in zip(paths, ages, strict=True)]
        bar = track(range(0, len(sources), CHUNK), what, console=Console(stderr=True), transient=True)
        return lined_up([result for start in bar for result in self.look(sources[start : start + CHUNK])], label)

    def arrays(self, images: Sequence[NDArray[np.float32]], age: float, label: str, what: str) -> Judged:
        """Pictures (rows, columns) in [0, 1], by way of PNG files."""
        with tempfile.TemporaryDirectory() as folder:
            paths = []
            for i, image in enumerate(images):
                paths.append(Path(folder) / f"{i}.png")
                Image.fromarray(np.rint(np.clip(image, 0.0, 1.0) * 255.0).astype(np.uint8)).save(paths[-1])
            return self.files(paths, [age] * len(paths), label, what)


def lined_up(results: Sequence[ImageResult], label: str) -> Judged:
    """What the results say about one label."""
    found = [next((f for f in result.findings if f.label == label), None) for result in results]
    distance = [np.nan if result.ood_distance is None else result.ood_distance for result in results]
    return Judged(
        _column(found, "score"),
        _column(found, "probability"),
        _column(found, "probability_sd"),
        _column(found, "mutual_information"),
        np.array(distance, np.float64),
        _column(found, "operating_point"),
        np.array([bool(finding and finding.present) for finding in found], bool),
        tuple(_reason(result, finding) for result, finding in zip(results, found, strict=True)),
    )


def reasons(results: Sequence[ImageResult]) -> list[dict[str, Any]]:
    """How many images were not looked at, by status and reason, the most frequent first."""
    counted = Counter((r.status.value, r.reason_code, r.reason) for r in results if r.status != ResultStatus.ANALYSED)
    return [
        {"status": status, "reason_code": code, "reason": reason, "images": n}
        for (status, code, reason), n in counted.most_common()
    ]


def _column(found: Sequence[Finding | None], name: str) -> Floats:
    return np.array([getattr(finding, name) if finding else np.nan for finding in found], np.float64)


def _reason(result: ImageResult, finding: Finding | None) -> str:
    if result.status is not ResultStatus.ANALYSED:
        return result.reason_code or result.status.value
    return "" if finding else "no_finding_of_this_label"
