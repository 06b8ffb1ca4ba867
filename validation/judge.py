"""Put files through the node's own code path (inference.analyser) and line up what it said as arrays."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from config.settings import LookSettings, Settings
from inference.analyser import Analyser, Source
from inference.package import load_package
from ledger.records import ImageResult, ResultStatus

CHUNK = 64


@dataclass(frozen=True)
class Judged:
    """What the node said of N images; NaN where it did not look. `reasons`: "" or the reason code."""

    score: NDArray[np.float64]
    probability: NDArray[np.float64]
    sd: NDArray[np.float64]
    present: NDArray[np.bool_]
    reasons: tuple[str, ...]

    @property
    def refused(self) -> NDArray[np.bool_]:
        return np.array([bool(reason) for reason in self.reasons])


class Judge:
    """One package behind the node's analyser. `threads` 0 takes every core."""

    def __init__(self, folder: Path, threads: int = 0) -> None:
        package = load_package(folder)
        self.manifest = package.manifest
        self._analyser = Analyser(Settings(look=LookSettings(threads=threads, provider="cpu")), (package,), children=2)

    def close(self) -> None:
        self._analyser.close()

    def files(self, paths: Sequence[Path], ages: Sequence[float | None], label: str, what: str) -> Judged:
        """PNG, JPEG or DICOM files; ages in years count for pictures only, which have no header."""
        results: list[ImageResult] = []
        for start in tqdm(range(0, len(paths), CHUNK), desc=what, unit="chunk", mininterval=5):
            sources = [
                Source(path, "chest-xray" if path.suffix in (".png", ".jpg", ".jpeg") else None, age)
                for path, age in zip(paths[start : start + CHUNK], ages[start : start + CHUNK], strict=True)
            ]
            results += [looked.results[0] for looked in self._analyser.analyse(sources)]
        return _lined_up(results, label)

    def arrays(self, images: Sequence[NDArray[np.float32]], age: float, label: str, what: str) -> Judged:
        """Pictures (rows, columns) in [0, 1], by way of PNG files."""
        with tempfile.TemporaryDirectory() as folder:
            paths = []
            for i, image in enumerate(images):
                paths.append(Path(folder) / f"{i}.png")
                Image.fromarray(np.rint(np.clip(image, 0.0, 1.0) * 255.0).astype(np.uint8)).save(paths[-1])
            return self.files(paths, [age] * len(paths), label, what)


def _lined_up(results: Sequence[ImageResult], label: str) -> Judged:
    found = [next((f for f in result.findings if f.label == label), None) for result in results]

    def column(name: str) -> NDArray[np.float64]:
        return np.array([getattr(finding, name) if finding else np.nan for finding in found], np.float64)

    return Judged(
        column("score"),
        column("probability"),
        column("probability_sd"),
        np.array([bool(finding and finding.present) for finding in found]),
        tuple("" if r.status is ResultStatus.ANALYSED else r.reason_code or r.status.value for r in results),
    )
