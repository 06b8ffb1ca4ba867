"""Boxes around what was found; the score of the image is that of its best box, over all passes."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from inference.findings import calibrate, findings_of, grid_box
from inference.manifest import DetectionSpec, Manifest
from inference.outputs import Role
from inference.tasks.task import Places, Said, SeenImage
from ledger.records import Finding, Region

SMALLEST_SIDE = 1.0  # of a box, in source pixels


class Detection:
    roles: tuple[Role, ...] = ("cam", "boxes", "box_scores")

    def fits(self, manifest: Manifest, n: int, places: Places) -> bool:
        """Scores outside of 0 to 1 do not fit either; a NaN is the finding of the image that has it."""
        boxes, scores, cam = places["boxes"], places["box_scores"], places["cam"]
        labels = len(manifest.labels)
        return (
            boxes.ndim == 3
            and boxes.shape[::2] == (n, 4)
            and scores.shape == (*boxes.shape[:2], labels)
            and cam.ndim == 4
            and cam.shape[:2] == (n, labels)
            and not ((scores < 0.0) | (scores > 1.0)).any()
        )

    def read(self, image: SeenImage) -> Said:
        findings = findings_of(image.scores, image.places["cam"], image.manifest, image.settings, image.source_shape)
        return Said(tuple(replace(finding, regions=regions_of(finding, image)) for finding in findings))


def regions_of(finding: Finding, image: SeenImage) -> tuple[Region, ...]:
    """The boxes of a finding that is present or in doubt, most probable first; none for one that is neither.

    A box counts from the manifest's box_threshold on, a calibrated probability; a finding that is present keeps its
    best box even below it, so that nobody is told of a fracture without being shown where.
    """
    spec = image.manifest.detection
    labels = [label.label for label in image.manifest.labels]
    if spec is None or finding.label not in labels or not (finding.present or finding.in_doubt):
        return ()
    i = labels.index(finding.label)
    boxes = to_source(image.places["boxes"], image.manifest, image.source_shape)
    whole = np.asarray((boxes[:, 2:] - boxes[:, :2]).min(axis=1) >= SMALLEST_SIDE)
    probability = calibrate(image.places["box_scores"][:, i], image.manifest.labels[i].calibration)
    order = [int(k) for k in np.argsort(-probability, kind="stable") if whole[k]]
    chosen = _chosen(order, probability, spec) or order[: int(finding.present)]
    return tuple(Region((*map(float, boxes[k]),), float(probability[k])) for k in chosen)  # type: ignore[arg-type]


def _chosen(order: list[int], probability: NDArray[np.float64], spec: DetectionSpec) -> list[int]:
    return [k for k in order if probability[k] >= spec.box_threshold][: spec.max_boxes]


def to_source(boxes: NDArray[np.float32], manifest: Manifest, shape: tuple[int, int]) -> NDArray[np.float64]:
    """boxes: (B, 4) in [0, 1] of the input. Returns (B, 4) in pixels of the source, clipped to it."""
    top, left, bottom, right = grid_box(manifest.input, shape)
    origin, size = np.array([top, left, top, left]), np.array([bottom - top, right - left] * 2)
    rows, columns = shape
    return np.asarray(np.clip(origin + boxes.astype(np.float64) * size, 0.0, [rows, columns, rows, columns]))
