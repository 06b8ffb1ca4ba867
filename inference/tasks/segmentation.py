"""A mask for each label of one slice; by itself a slice raises nothing."""

from inference.findings import findings_of
from inference.manifest import Manifest
from inference.outputs import Role
from inference.tasks.task import Places, Said, SeenImage


class Segmentation:
    roles: tuple[Role, ...] = ("masks",)

    def fits(self, manifest: Manifest, n: int, places: Places) -> bool:
        spec = manifest.input
        return places["masks"].shape == (n, len(manifest.labels), spec.height, spec.width)

    def read(self, image: SeenImage) -> Said:
        return Said(findings_of(image.scores, None, image.manifest, image.settings, image.source_shape))
