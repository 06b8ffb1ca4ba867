"""Why an image could not be assessed, as codes: one table from the short names that results carry.

A name the table does not know is said as another reason, never left out; the sentence beside it says the rest.
"""

from collections.abc import Sequence

from highdicom.sr import CodeContentItem, CodedConcept, RelationshipTypeValues

from sr_writer import codes
from sr_writer.reading import Read

Coded = tuple[CodedConcept, CodedConcept]  # concept name, value

_QUALITY = CodedConcept("111101", "DCM", "Image Quality")
_REASON = CodedConcept("NOT_ASSESSED", codes.PRIVATE_SCHEME, "Reason not assessed by AI")
_SOFTWARE_FAILURE = CodedConcept("111218", "DCM", "Software failure")


def _private(value: str, meaning: str) -> Coded:
    return _REASON, CodedConcept(value, codes.PRIVATE_SCHEME, meaning)


OTHER = _private("OTHER_REASON", "Another reason")
_UNDECODABLE = _private("UNDECODABLE", "Pixel data cannot be decoded")
_HEADER = _private("HEADER_INVALID", "Header does not describe the pixel data")
_GREY = _private("GREY_SCALE", "Tables or windows of the grey scale are not valid")

# Short name of a result -> code. Values of Image Quality: CID 6135 and CID 7036.
REASONS: dict[str, Coded] = {
    "constant_pixels": (_QUALITY, CodedConcept("RID14", "RADLEX", "Non-diagnostic quality")),
    "no_pixel_data": (_QUALITY, CodedConcept("111213", "DCM", "No image")),
    "for_processing": (_QUALITY, CodedConcept("111219", "DCM", "Inappropriate image processing")),
    "age_unknown": _private("AGE_UNKNOWN", "Patient's age is unknown"),
    "age_outside": _private("AGE_OUTSIDE", "Patient's age is outside the model's range"),
    "too_small": _private("TOO_SMALL", "Image is smaller than the model reads"),
    "multi_frame": _private("MULTI_FRAME", "Multi-frame image, which the model does not read"),
    "colour": _private("COLOUR", "Image is in colour"),
    "outside_distribution": _private("UNLIKE_TRAINING", "Image is unlike those of the model's training"),
    "abstained": _private("ABSTAINED", "Model is too uncertain of its own answer"),
    "header_malformed": _HEADER,
    "photometric_unsupported": _HEADER,
    "pixel_length": _HEADER,
    "rescale_invalid": _GREY,
    "window_invalid": _GREY,
    "lut_invalid": _GREY,
    "decode_failed": _UNDECODABLE,
    "decode_limit": _UNDECODABLE,
    "decoder_missing": _UNDECODABLE,
    "unreadable": _UNDECODABLE,
    "package_refused": _private("NO_MODEL", "Model cannot be used on this node"),
    "output_not_finite": (_REASON, _SOFTWARE_FAILURE),
    "internal_error": (_REASON, _SOFTWARE_FAILURE),
    "process_lost": (_REASON, _SOFTWARE_FAILURE),
    "attempts_exhausted": (_REASON, _SOFTWARE_FAILURE),
    "parked": (_REASON, _SOFTWARE_FAILURE),
}


def coded(unjudged: Sequence[Read]) -> list[Coded]:
    """Each reason once, in the order of the images."""
    found = [REASONS.get(read.result.reason_code, OTHER) for read in unjudged]
    return [pair for i, pair in enumerate(found) if pair not in found[:i]]


def reason_items(unjudged: Sequence[Read]) -> list[CodeContentItem]:
    """Content items for a report of the images that could not be judged."""
    return [CodeContentItem(name, value, RelationshipTypeValues.CONTAINS) for name, value in coded(unjudged)]
