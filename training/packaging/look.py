"""Put pictures through an ONNX package as the node does: its resize, its stretch, its runtime. No torch here."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from inference.fit_input import resize
from inference.manifest import InputSpec
from inference.outputs import Outputs as Told
from inference.tensor import to_tensor
from inference.views import run_all

BATCH = 16
CLASSIFIER = ("scores", "cam", "features")


@dataclass(frozen=True)
class Outputs:
    """scores: (N, T, L) in (0, 1), uncalibrated; features: (N, C)."""

    scores: NDArray[np.float32]
    features: NDArray[np.float32]


def read_grey(path: Path) -> NDArray[np.float32]:
    """A picture file as (rows, columns) float32 in [0, 1]."""
    with Image.open(path) as picture:
        return np.asarray(picture.convert("L"), np.float32) / np.float32(255.0)


def tensor(image: NDArray[np.float32], spec: InputSpec) -> NDArray[np.float32]:
    """image: (rows, columns) float32 in [0, 1], larger is brighter. Returns (1, H, W) in the value range."""
    return to_tensor(resize(image, spec.height, spec.width, spec.fit), spec)


class Model:
    """A session on the CPU for each member; `threads` 0 takes every core. names: of the outputs, scores first,
    features last."""

    def __init__(
        self,
        model: Path | bytes | Sequence[Path],
        spec: InputSpec,
        threads: int = 0,
        names: tuple[str, ...] = CLASSIFIER,
    ) -> None:
        ort: Any = onnxruntime  # its stubs export nothing
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        members = (model,) if isinstance(model, Path | bytes) else model
        sources = [str(one) if isinstance(one, Path) else one for one in members]
        self.sessions = [ort.InferenceSession(one, options, providers=["CPUExecutionProvider"]) for one in sources]
        self.spec, self.names = spec, names

    def run(self, batch: NDArray[np.float32]) -> tuple[NDArray[np.float32], ...]:
        """The first member alone. batch: (N, 1, H, W).

        Returns scores (N, T, L), what shows the place by task, features (N, C).
        """
        return tuple(self.sessions[0].run(list(self.names), {self.spec.name: batch}))

    def passes(self, batch: NDArray[np.float32]) -> Outputs:
        """batch: (N, 1, H, W). Every member over the manifest's views, by the node's own code (inference/views.py)."""
        found = run_all([partial(self._told, session) for session in self.sessions], batch, self.spec)
        return Outputs(found.scores, found.features)

    def _told(self, session: Any, batch: NDArray[np.float32]) -> Told:
        scores, features = session.run([self.names[0], self.names[-1]], {self.spec.name: batch})
        return Told(scores, features, {})

    def look(self, images: Sequence[NDArray[np.float32]] | Sequence[Path], what: str = "looking") -> Outputs:
        """images: pictures (rows, columns) in [0, 1], or files of pictures."""
        scores, features = [], []
        for start in tqdm(range(0, len(images), BATCH), desc=what, unit="batch", mininterval=5):
            pictures = [read_grey(i) if isinstance(i, Path) else i for i in images[start : start + BATCH]]
            found = self.passes(np.stack([tensor(picture, self.spec) for picture in pictures]))
            scores.append(found.scores)
            features.append(found.features)
        return Outputs(np.concatenate(scores), np.concatenate(features))
