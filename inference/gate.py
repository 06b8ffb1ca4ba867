"""May the model look at this image? Each question has a stable short name and a sentence for a person.

The order is that of cost: the header, then the pixels, then the features that the model itself computed.
"""

from typing import Literal

from inference.errors import CannotLook
from inference.header import HeaderFacts
from inference.manifest import Manifest

OLDEST = 120.0  # years: a range that ends here has no end
SMALLEST_SPAN = 1.0 / 255.0  # of brightness: below it a person sees one grey


def check_header(facts: HeaderFacts, manifest: Manifest, unknown_age: Literal["refuse", "accept"]) -> None:
    """Raises CannotLook with the first reason not to look."""
    if facts.malformed:
        raise CannotLook("header_malformed", f"{facts.malformed}.")
    if not facts.has_pixels:
        raise CannotLook("no_pixel_data", "The instance holds no pixel data that a model could look at.")
    if facts.for_processing:
        raise CannotLook("for_processing", "The image is FOR PROCESSING, not for presentation.")
    if facts.frames > 1 and manifest.task == "segmentation":  # of a multi-frame image one frame alone is decoded
        raise CannotLook("multi_frame", "The image holds several frames; the model reads slices stored one by one.")
    _check_age(facts.age_years, manifest, unknown_age)
    smallest = manifest.reads.min_side_pixels
    if min(facts.rows, facts.columns) < smallest:
        raise CannotLook("too_small", f"The image has a side of fewer than {smallest} pixels.")


def check_pixels(span: float) -> None:
    """span: greatest minus least brightness in the whole picture. Raises CannotLook."""
    if span < SMALLEST_SPAN:
        raise CannotLook("constant_pixels", "The image shows one grey only.")


def check_features(distance: float, manifest: Manifest) -> None:
    """distance: of the pooled features from those seen in training. Raises CannotLook."""
    if manifest.gate is not None and not distance <= manifest.gate.threshold:
        raise CannotLook("outside_distribution", "The image is unlike the images that the model was trained on.")


def _check_age(age_years: float | None, manifest: Manifest, unknown_age: Literal["refuse", "accept"]) -> None:
    validated = manifest.ages_years
    if not validated:
        return
    if age_years is None:
        if unknown_age == "refuse":
            raise CannotLook("age_unknown", f"The patient's age is unknown; the model is for {age_words(validated)}.")
        return
    if not any(low <= age_years < high for low, high in validated):
        raise CannotLook(
            "age_outside", f"The patient's age is outside the model's validated range, {age_words(validated)}."
        )


def age_words(validated: tuple[tuple[float, float], ...]) -> str:
    """The ranges for a person; "any age" when there is none."""
    spans = [
        f"{low:g} to below {high:g} years" if high < OLDEST else f"{low:g} years and older" for low, high in validated
    ]
    return " or ".join(spans) or "any age"
