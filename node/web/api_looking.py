"""An uploaded image on its way to the analyser and back. This process decodes nothing and loads no model."""

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from time import perf_counter
from typing import Any, Final

from config import Settings
from inference.picture_kinds import PICTURE_KINDS
from ledger.records import TriagePriority
from node.looking.wire import NoAnalyser, Refusal, ask
from node.web.problems import Problem
from node.web.uploads import Upload

SCHEMA_VERSION: Final = 1
UNLESS_TOLD: Final = " and ".join(sorted(PICTURE_KINDS))


def analysis_of(settings: Settings, upload: Upload, as_kind: str | None, age: float | None) -> dict[str, Any]:
    """What the models say of one upload (api_schemas.Analysis). Raises Problem."""
    received_at, began = datetime.now(UTC), perf_counter()
    if not upload.is_dicom and not upload.is_picture:
        raise Problem(422, "This file is no DICOM file (PS3.10), PNG or JPEG.")
    if upload.is_picture and as_kind not in PICTURE_KINDS:
        raise Problem(422, f"A PNG or JPEG needs the field `as`: what it shows. The kinds are {UNLESS_TOLD}.")
    picture = {"as_kind": as_kind, "age": age} if upload.is_picture else {}
    try:
        reply = ask(settings, "look", settings.web.look_timeout_s, path=str(upload.path.absolute()), **picture)
    except NoAnalyser as error:
        raise Problem(503, f"The image was not looked at: {error}.", {"Retry-After": str(error.retry_s)}) from None
    except Refusal as refusal:
        raise Problem(422, f"The image was not looked at: {refusal}") from None
    return _summed_up(reply.said["lines"], received_at, (perf_counter() - began) * 1000.0)


def _summed_up(lines: Sequence[Mapping[str, Any]], received_at: datetime, duration_ms: float) -> dict[str, Any]:
    urgent = sorted(lines, key=_rank)
    return {
        "schema_version": SCHEMA_VERSION,
        "received_at": received_at.isoformat(),
        "duration_ms": round(duration_ms, 3),
        "priority": urgent[0]["priority"] if urgent else None,
        "probabilities": [_distribution(line, finding) for line in urgent for finding in line["findings"]],
        "critical_flags": list(dict.fromkeys(flag for line in urgent for flag in line["critical_flags"])),
        "recommendations": list(dict.fromkeys(text for line in urgent for text in line["recommendations"])),
        "results": list(lines),
    }


def _rank(line: Mapping[str, Any]) -> float:
    return TriagePriority(line["priority"]).rank if line["priority"] else math.inf


def _distribution(line: Mapping[str, Any], finding: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "model": line["model"],
        "label": finding["label"],
        "present": finding["probability"],
        "absent": 1.0 - finding["probability"],
        "sd": finding["probability_sd"],
        "mutual_information": finding["mutual_information"],
        "entropy": finding["entropy"],
    }
