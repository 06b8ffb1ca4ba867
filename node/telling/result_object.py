"""What a model said of an image, as an object for programs. Whoever only tells it need not be able to look."""

from typing import Any

from ledger.records import Finding, ImageResult


def as_object(result: ImageResult) -> dict[str, Any]:
    """What one model said of one image."""
    said: dict[str, Any] = {
        "model": result.model.name if result.model else None,
        "model_version": result.model.version if result.model else None,
        "status": result.status.value,
        "reason": result.reason,
        "findings": [
            {
                "label": finding.label,
                "code": {
                    "value": finding.code.value,
                    "scheme": finding.code.scheme,
                    "meaning": finding.code.meaning,
                },
                "probability": finding.probability,
                "probability_sd": finding.probability_sd,
                "mutual_information": finding.mutual_information,
                "entropy": finding.entropy,
                "present": finding.present,
                **_regions(finding),
            }
            for finding in result.findings
        ],
        "priority": result.priority.value if result.priority else None,
        "critical_flags": list(result.critical_flags),
        "recommendations": list(result.recommendations),
        "duration_ms": round(result.duration_ms, 3),
    }
    if result.model and result.model.volume_rule:
        said["masks"] = [{"label": mask.label, "pixels": mask.pixels} for mask in result.masks]
    if result.unverified_input:
        said["unverified_input"] = True  # a picture: nothing vouches for what it shows
    return said


def _regions(finding: Finding) -> dict[str, Any]:
    """The boxes of a detector's finding: top, left, bottom, right in pixels of the image."""
    boxes = [{"box": [round(side, 1) for side in one.box], "probability": one.probability} for one in finding.regions]
    return {"regions": boxes} if boxes else {}
