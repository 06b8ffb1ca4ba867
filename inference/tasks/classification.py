"""A score for each label of the whole image, and a class activation map that shows where it comes from."""

from inference.findings import findings_of
from inference.manifest import Manifest
from inference.outputs import Role
from inference.tasks.task import Places, Said, SeenImage


class Classification:
    roles: tuple[Role, ...] = ("cam",)

    def fits(self, manifest: Manifest, n: int, places: Places) -> bool:
        cam = places["cam"]
        return cam.ndim == 4 and cam.shape[:2] == (n, len(manifest.labels))

    def read(self, image: SeenImage) -> Said:
        return Said(findings_of(image.scores, image.places["cam"], image.manifest, image.settings, image.source_shape))
