"""Boxes for each label; the score of the image is a pass over all of them."""

from inference.findings import findings_of
from inference.manifest import Manifest
from inference.outputs import Role
from inference.tasks.task import Places, Said, SeenImage


class Detection:
    roles: tuple[Role, ...] = ("boxes", "box_scores")

    def fits(self, manifest: Manifest, n: int, places: Places) -> bool:
        boxes, scores = places["boxes"], places["box_scores"]
        return (
            boxes.ndim == 3 and boxes.shape[::2] == (n, 4) and scores.shape == (*boxes.shape[:2], len(manifest.labels))
        )

    def read(self, image: SeenImage) -> Said:
        return Said(findings_of(image.scores, None, image.manifest, image.settings, image.source_shape))
