"""What `opentriage explain` tells of a study, as an object for programs. No patient's identity is in it."""

from collections.abc import Mapping
from datetime import datetime
from enum import Enum
from typing import Any

from ledger.ledger import Ledger
from ledger.records import InstanceResults
from ledger.views import ObjectDelivery
from node.telling.result_object import as_object

SCHEMA_VERSION = 1
_HIDDEN = frozenset({"path"})  # where the node keeps it is nobody else's business


def study_object(ledger: Ledger, study_uid: str) -> dict[str, Any] | None:
    """None: the node has never received that study."""
    events = ledger.events(study_uid)
    if not events:
        return None
    damaged = ledger.damaged_of(study_uid)
    waiting = ledger.waiting(study_uid)
    return {
        "schema_version": SCHEMA_VERSION,
        "study_instance_uid": study_uid,
        "hold": ledger.hold(study_uid),
        "events": [plain(event) for event in events],
        "waiting": plain(waiting) if waiting else None,
        "images": [_image(item, damaged) for item in ledger.study_instances(study_uid)],
        "objects": [_object(made) for made in ledger.study_objects(study_uid)],
        "told": [plain(one) for one in ledger.told(study_uid)],
    }


def _image(item: InstanceResults, damaged: frozenset[int]) -> dict[str, Any]:
    ref = item.instance
    return {
        "sop_class_uid": ref.sop_class_uid,
        "sop_instance_uid": ref.sop_instance_uid,
        "series_instance_uid": ref.series_instance_uid,
        "modality": ref.modality,
        "sha256": ref.sha256,
        "received_at": ref.received_at.isoformat(),
        "is_damaged": ref.instance_id in damaged,
        "results": [as_object(result) for result in item.results],
    }


def _object(made: ObjectDelivery) -> dict[str, Any]:
    said: dict[str, Any] = plain(made)
    return said


def plain(value: Any) -> Any:
    """A record as JSON values: enumerations by value, times in ISO 8601."""
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, datetime):
        return value.isoformat()
    if hasattr(value, "__dataclass_fields__"):
        return {name: plain(getattr(value, name)) for name in value.__dataclass_fields__ if name not in _HIDDEN}
    if isinstance(value, Mapping):
        return {str(key): plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    return value
