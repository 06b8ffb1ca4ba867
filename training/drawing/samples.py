"""The six samples the product ships: synthetic chests of invented children, three of them with an opacity.

Each is drawn from training/drawing/generator.py, wrapped as a DX instance and put through the shipped package by the
node's own code path. Draws are made, seed after seed, until gate and model agree with what was meant to be drawn: the
gate accepts the picture as it is shipped, unloosened, and the model calls the opacity, with a high probability, or does
not, without doubt. A draw that is nearer to some training picture than 95 % of children are to their nearest other
child is thrown away. So the samples show how the product works; they say nothing about how well.
"""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from training.data.images import LabelledImages
from training.drawing.generator import Generator, fit_generator
from training.drawing.nearness import Views, between_patients, nearest, views
from training.drawing.synthetic_dx import CODINGS, Coding, write_dx
from training.packaging.package import Splits
from validation.judge import Judge

FIT_ON = 400  # pictures of the training split, half of each class, one per patient group
FIRST_SEED = 20_261_120
BATCH = 6
MAX_DRAWS = 240
ROWS, COLUMNS = 512, 640  # the training pictures were squashed from about this shape
MARGIN = 8  # of 224 pixels: cut off, because there the bending had to invent
SURE_ABSENT, SURE_PRESENT = 0.1, 0.9  # probabilities that a sample must stay below, or reach


@dataclass(frozen=True)
class Likeness:
    """All training pictures, and how like the most similar pictures of two children are to each other."""

    real: Views
    limits: dict[str, dict[str, float]]

    def of(self, pictures: list[NDArray[np.float32]]) -> list[dict[str, float]]:
        return nearest(views(np.stack([np.rint(p * 255.0).astype(np.uint8) for p in pictures])), self.real)

    def too_like(self, found: dict[str, float]) -> bool:
        return any(found[name] > limit["p95"] for name, limit in self.limits.items())


@dataclass(frozen=True)
class Sample:
    """One draw that was kept."""

    ill: bool
    seed: int
    picture: NDArray[np.float32]  # (224, 224), before the margin is cut off


def write_samples(splits: Splits, package: Path, out: Path) -> dict[str, Any]:
    """Fit, draw, keep six, write `out`/synthetic-chest-N.dcm. Returns what was measured of each."""
    generator = fit_on(splits.train)
    real = views(splits.train.pixels)
    likeness = Likeness(real, between_patients(real, splits.train.groups))
    judge = Judge(package)
    try:
        kept = {ill: _draw(generator, judge, likeness, ill) for ill in (False, True)}
        order = [sample for pair in zip(kept[False], kept[True], strict=True) for sample in pair]
        out.mkdir(parents=True, exist_ok=True)
        for old in out.glob("*.dcm"):
            old.unlink()
        files = [
            write_dx(out / f"synthetic-chest-{i}.dcm", film(s.picture, s.seed), i, s.ill, coding)
            for i, (s, coding) in enumerate(zip(order, CODINGS, strict=True), start=1)
        ]
        return _report(likeness, order, files, judge)
    finally:
        judge.close()


def fit_on(train: LabelledImages) -> Generator:
    """A generator fitted to one picture of each of some patients, as many with as without an opacity."""
    rng = np.random.default_rng(FIRST_SEED)
    _, first = np.unique(np.asarray(train.groups), return_index=True)
    ill = train.labels[first, 0] > 0.5
    rows = np.concatenate([rng.choice(first[ill == kind], FIT_ON // 2, replace=False) for kind in (False, True)])
    return fit_generator(train.pixels[rows], train.labels[rows, 0] > 0.5)


def film(picture: NDArray[np.float32], seed: int) -> NDArray[np.uint16]:
    """(224, 224) in [0, 1] -> (512, 640), 12 bit, larger is brighter, with a detector's fine noise."""
    cut = np.ascontiguousarray(picture[MARGIN:-MARGIN, MARGIN:-MARGIN])
    large = np.asarray(Image.fromarray(cut, mode="F").resize((COLUMNS, ROWS), Image.Resampling.BICUBIC), np.float64)
    noise = np.random.default_rng(seed).normal(0.0, 1.0, large.shape)
    values = 200.0 + 3600.0 * np.clip(large, 0.0, 1.0) + noise * (6.0 + 6.0 * np.sqrt(np.clip(large, 0.0, 1.0)))
    return np.clip(np.rint(values), 0, 4095).astype(np.uint16)


def _draw(generator: Generator, judge: Judge, likeness: Likeness, ill: bool) -> list[Sample]:
    """Three draws on which package and intention agree."""
    kept: list[Sample] = []
    plain = Coding("explicit", "MONOCHROME2", "PA", True)
    for start in range(0, MAX_DRAWS, BATCH):
        seeds = [FIRST_SEED + 1000 * int(ill) + start + i for i in range(BATCH)]
        pictures = [generator.draw(ill, seed) for seed in seeds]
        with tempfile.TemporaryDirectory() as folder:
            files = [
                write_dx(Path(folder) / f"{seed}.dcm", film(picture, seed), 1, ill, plain)
                for seed, picture in zip(seeds, pictures, strict=True)
            ]
            judged = judge.files(files, [None] * BATCH, "pneumonia", "drawing")
        near = likeness.of(pictures)
        for i, (seed, picture) in enumerate(zip(seeds, pictures, strict=True)):
            p = judged.probability[i]
            agrees = (judged.present[i] and p >= SURE_PRESENT) if ill else (not judged.present[i] and p <= SURE_ABSENT)
            if not judged.refused[i] and agrees and not likeness.too_like(near[i]):
                kept.append(Sample(ill, seed, picture))
        if len(kept) >= 3:
            return kept[:3]
    raise RuntimeError(f"no three of {MAX_DRAWS} draws did what they were meant to")


def _report(likeness: Likeness, order: list[Sample], files: list[Path], judge: Judge) -> dict[str, Any]:
    """What the package says of the files as shipped, and how far each is from the nearest training picture."""
    near = likeness.of([sample.picture for sample in order])
    judged = judge.files(files, [None] * len(files), "pneumonia", "checking")
    if judged.refused.any() or [bool(p) for p in judged.present] != [sample.ill for sample in order]:
        raise RuntimeError("a sample as written is not judged as it was when drawn")
    return {
        "nearest_other_child_of_real_ones": likeness.limits,
        "samples": [
            {
                "file": path.name,
                "opacity": sample.ill,
                "seed": sample.seed,
                "probability": round(float(judged.probability[i]), 3),
                "sd": round(float(judged.sd[i]), 3),
                "bytes": path.stat().st_size,
                "nearest_training_picture": near[i],
            }
            for i, (sample, path) in enumerate(zip(order, files, strict=True))
        ],
    }


def readme(report: dict[str, Any], package: str) -> str:
    """The page that lies beside the samples: what they are, and how far from any child."""
    limits = report["nearest_other_child_of_real_ones"]
    rows = [
        f"| {s['file']} | {'yes' if s['opacity'] else 'no'} | {s['seed']} | {s['probability']} ± {s['sd']} |"
        f" {s['nearest_training_picture']['coarse']} | {s['nearest_training_picture']['detail']} |"
        for s in report["samples"]
    ]
    return (
        f"""# Synthetic chests of invented children

Drawn by `opentriage-train samples` from a generative model (training/drawing/generator.py) fitted to {FIT_ON}
pictures of the training split of the data named in the package's LICENSE (CC BY 4.0). They show nobody and are copies
of nothing. Draws were made until the gate and the model of {package} agreed with what was meant, so these figures say
nothing about how well the model works.

Likeness is the greatest correlation with any training picture, of the whole at 56 x 56 pixels and of the detail that a
blur of 3 pixels takes away. Two different children's most similar pictures have {limits["coarse"]["median"]} (95th
percentile {limits["coarse"]["p95"]}) and {limits["detail"]["median"]} ({limits["detail"]["p95"]}); a copy has 1 and 1.

| file | opacity drawn | seed | probability | likeness | likeness of detail |
|---|---|--:|--:|--:|--:|
"""
        + "\n".join(rows)
        + "\n"
    )
