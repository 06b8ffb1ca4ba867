"""A mask for each label of one slice; by itself a slice raises nothing."""

from inference.findings import findings_of
from inference.manifest import Manifest
from inference.masks import keep_mask, source_mask
from inference.outputs import Role
from inference.tasks.task import Places, Said, SeenImage


class Segmentation:
    roles: tuple[Role, ...] = ("masks",)

    def fits(self, manifest: Manifest, n: int, places: Places) -> bool:
        spec = manifest.input
        return places["masks"].shape == (n, len(manifest.labels), spec.height, spec.width)

    def read(self, image: SeenImage) -> Said:
        manifest = image.manifest
        findings = findings_of(image.scores, None, manifest, image.settings, image.source_shape)
        threshold = manifest.segmentation.mask_threshold if manifest.segmentation else 0.5
        masks = []
        for spec, probability in zip(manifest.labels, image.places["masks"], strict=True):
            marked = source_mask(probability, manifest.input, image.source_shape, threshold)
            if marked.any() and any(finding.label == spec.label for finding in findings):
                masks.append(keep_mask(spec.label, marked, image.store))
        return Said(findings, tuple(masks))
