"""What a slice model is worth on patients it has not seen, through the node's own code path (inference.analyser).

A slice counts, as in inference/volume.py, when its finding is present and its mask has a pixel; a run is a row of
neighbouring slices that count. The set has no slice distance: volumes are compared in pixels over a patient's slices.
"""

import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from inference.analyser import Source
from ledger.records import ImageResult
from ledger.store import Store
from training.data.brain import MarkedSlices
from validation.bootstrap import DRAWS, draws_of, interval
from validation.figures import Evidence, label_figures
from validation.judge import Judge, Judged, lined_up, reasons
from validation.masks import read_mask
from validation.overlap import Counts, by_patient, count, patient_dice
from validation.statistics import proportion

Figures = dict[str, Any]
GOALS = {"mean_dice_over_patients": 0.85, "slice_auc": 0.97}
SLICE_SIZES = (
    ("below 100", 1, 100),
    ("100 to 499", 100, 500),
    ("500 to 1999", 500, 2000),
    ("2000 or more", 2000, 1 << 30),
)
CHUNK = 64


@dataclass(frozen=True)
class Seen:
    """N slices and what the node said of them. masks: (N, H, W) in source geometry, whether they count or not."""

    slices: MarkedSlices
    judged: Judged
    masks: NDArray[np.bool_]
    refusals: list[dict[str, Any]]

    @property
    def counts(self) -> NDArray[np.bool_]:
        """(N,): present, and marked somewhere."""
        return np.asarray(self.judged.present & self.masks.any(axis=(1, 2)))

    @property
    def counted(self) -> NDArray[np.bool_]:
        """(N, H, W): the masks of the slices that count."""
        return np.asarray(self.masks & self.counts[:, np.newaxis, np.newaxis])


def see(judge: Judge, slices: MarkedSlices, store: Store) -> Seen:
    """judge: of the package, with this store. The slices go to it as pictures, called what the package reads."""
    reads, results = judge.manifest.reads, []
    kind = f"{reads.modalities[0]}/{reads.body_parts[0]}"
    with tempfile.TemporaryDirectory() as folder:
        for start in tqdm(range(0, len(slices), CHUNK), desc="looking", unit="chunk", mininterval=5):
            paths = [_png(Path(folder) / f"{i}.png", pixels) for i, pixels in enumerate(slices.pixels[start:][:CHUNK])]
            results += judge.look([Source(path, kind) for path in paths])
    label = judge.manifest.labels[0].label
    masks = np.stack([_mask(result, label, store, slices.masks.shape[1:]) for result in results])
    return Seen(slices, lined_up(results, label), masks, reasons(results))


def slice_figures(seen: Seen, label: str, min_slices: int, draws: int = DRAWS) -> Figures:
    """Everything that validation.json says of one held-out set of patients."""
    slices, person = seen.slices, seen.slices.masks > 0
    kept, all_marks = count(seen.counted, person), count(seen.masks, person)
    evidence = Evidence(label, slices.marked.astype(np.float64), seen.judged, slices.patients, {})
    return {
        "slices": label_figures(evidence, draws),
        "not_looked_at": seen.refusals,
        "dice": {
            "as_counted": patient_dice(kept, slices.patients, draws),
            "masks_alone": patient_dice(all_marks, slices.patients, draws),
            "by_institution": _by_institution(kept, slices, draws),
            "by_tumour_size": _by_size(kept, slices, draws),
        },
        "sensitivity_by_marked_pixels": _by_pixels(seen),
        "volume": _volume(kept, slices, draws),
        "runs": run_figures(seen.counts, slices, min_slices),
        "patients": _per_patient(kept, slices),
    }


def run_figures(counts: NDArray[np.bool_], slices: MarkedSlices, min_slices: int) -> Figures:
    """Rows of neighbouring slices that count: which meet a tumour, and which are false. counts: (N,)."""
    true = slices.marked
    found, patients_false, false_long, false_short = 0, 0, 0, 0
    names = sorted(set(slices.patients))
    for name in names:
        index = [i for i, patient in enumerate(slices.patients) if patient == name]
        rows = list(_runs([i for i in index if counts[i]], slices.positions))
        hits = [bool(true[row].any()) for row in rows]
        long = [len(row) >= min_slices for row in rows]
        found += any(hit and is_long for hit, is_long in zip(hits, long, strict=True))
        wrong = sum(is_long and not hit for hit, is_long in zip(hits, long, strict=True))
        false_long, patients_false = false_long + wrong, patients_false + (wrong > 0)
        false_short += sum(not is_long and not hit for hit, is_long in zip(hits, long, strict=True))
    return {
        "min_slices": min_slices,
        "patients_found": proportion(found, len(names)),
        "patients_with_a_false_run": proportion(patients_false, len(names)),
        "false_runs": false_long,
        "false_marks_too_short_to_count": false_short,
    }


def against_goals(figures: Figures) -> list[Figures]:
    """Each goal of the project beside what was measured."""
    reached = {
        "mean_dice_over_patients": figures["dice"]["as_counted"]["mean"],
        "slice_auc": figures["slices"]["auc_of_those_looked_at"]["value"],
    }
    return [
        {"figure": name, "goal": goal, "measured": reached[name], "reached": reached[name] >= goal}
        for name, goal in GOALS.items()
    ]


def _runs(index: list[int], positions: tuple[int, ...]) -> Iterable[list[int]]:
    """Indices in order of position, cut where a neighbour is missing."""
    row = index[:1]
    for one, other in pairwise(index):
        if positions[other] != positions[one] + 1:
            yield row
            row = []
        row.append(other)
    if row:
        yield row


def _png(path: Path, pixels: NDArray[np.uint8]) -> Path:
    Image.fromarray(pixels).save(path, compress_level=1)
    return path


def _mask(result: ImageResult, label: str, store: Store, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    own = next((one for one in result.masks if one.label == label), None)
    return np.zeros(shape, np.bool_) if own is None else read_mask(store.path(own.path))


def _where(counts: Counts, chosen: NDArray[np.bool_]) -> Counts:
    return Counts(counts.model[chosen], counts.person[chosen], counts.both[chosen])


def _dice_of(counts: Counts, slices: MarkedSlices, chosen: NDArray[np.bool_], draws: int) -> Figures:
    return patient_dice(
        _where(counts, chosen), [p for p, kept in zip(slices.patients, chosen, strict=True) if kept], draws
    )


def _by_institution(counts: Counts, slices: MarkedSlices, draws: int) -> Figures:
    homes = np.array(slices.institutions)
    return {home: _dice_of(counts, slices, homes == home, draws) for home in sorted(set(slices.institutions))}


def _by_size(counts: Counts, slices: MarkedSlices, draws: int) -> Figures:
    """Patients in three groups of equal number by the pixels that the person marked in them."""
    names, volumes = by_patient(counts, slices.patients)
    edges = np.quantile(volumes.person, (1 / 3, 2 / 3))
    group = dict(zip(names, np.searchsorted(edges, volumes.person), strict=True))
    owner = np.array([group[patient] for patient in slices.patients])
    texts = (f"up to {edges[0]:.0f} pixels", f"up to {edges[1]:.0f} pixels", "more")
    return {text: _dice_of(counts, slices, owner == i, draws) for i, text in enumerate(texts) if (owner == i).any()}


def _by_pixels(seen: Seen) -> Figures:
    """How many slices with a tumour of each size count."""
    pixels = seen.slices.masks.sum(axis=(1, 2), dtype=np.int64)
    out = {}
    for name, low, high in SLICE_SIZES:
        chosen = (pixels >= low) & (pixels < high)
        out[name] = proportion(int(seen.counts[chosen].sum()), int(chosen.sum()))
    return out


def _volume(counts: Counts, slices: MarkedSlices, draws: int) -> Figures:
    """How much more or less than the person the model marked in each patient, as a share of the person's."""
    _, volumes = by_patient(counts, slices.patients)
    known = volumes.person > 0
    error = (volumes.model[known] - volumes.person[known]) / volumes.person[known]
    weights = draws_of(len(error), draws, 1)
    return {
        "patients": len(error),
        "mean_error": round(float(error.mean()), 4),
        "mean_error_bootstrap95_by_patient": interval(weights @ error / len(error)),
        "median_absolute_error": round(float(np.median(np.abs(error))), 4),
        "within_20_percent": proportion(int((np.abs(error) <= 0.2).sum()), len(error)),
    }


def _per_patient(counts: Counts, slices: MarkedSlices) -> list[Figures]:
    names, volumes = by_patient(counts, slices.patients)
    homes = dict(zip(slices.patients, slices.institutions, strict=True))
    rows = zip(names, volumes.model, volumes.person, volumes.both, strict=True)
    return [
        {
            "institution": homes[name],
            "pixels_by_model": int(model),
            "pixels_by_person": int(person),
            "dice": round(2.0 * int(both) / max(1, int(model + person)), 4),
        }
        for name, model, person, both in rows
    ]
