"""What was made of a study and where each object of it is: the same on the page and in `explain`."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from ledger.delivery_records import DeliveryState
from ledger.records import TriagePriority
from ledger.views import ObjectDelivery

_FARTHEST = (
    DeliveryState.DELIVERED, DeliveryState.STOPPED, DeliveryState.REFUSED, DeliveryState.WAITING,
    DeliveryState.SHADOW, DeliveryState.NOT_NEEDED,
)  # fmt: skip


@dataclass(frozen=True)
class Made:
    """One object in all its forms. places: of each destination, in the order of their names, the form that counts
    there, or the object alone where it goes nowhere. spare: the forms that another form made needless."""

    report_id: int
    report_kind: str
    priority: TriagePriority
    made_at: datetime
    kind: str
    places: tuple[ObjectDelivery, ...]
    spare: tuple[ObjectDelivery, ...]


def made_of(deliveries: Iterable[ObjectDelivery]) -> list[Made]:
    """Everything that was made of one study, in the order it was made."""
    groups: dict[tuple[int, str], list[ObjectDelivery]] = {}
    for one in deliveries:
        groups.setdefault((one.report_id, one.choice or one.sop_instance_uid), []).append(one)
    return [_made(forms) for forms in groups.values()]


def _made(forms: list[ObjectDelivery]) -> Made:
    by_place: dict[str, list[ObjectDelivery]] = {}
    for one in forms:
        by_place.setdefault(one.destination or "", []).append(one)
    if len(by_place) > 1:
        by_place.pop("", None)  # a form that no destination wanted
    places = tuple(min(by_place[name], key=_distance) for name in sorted(by_place))
    spare = [one for one in forms if one not in places and one.state is DeliveryState.NOT_NEEDED]
    first = forms[0]
    return Made(first.report_id, first.report_kind, first.priority, first.made_at, first.kind, places, tuple(spare))


def _distance(one: ObjectDelivery) -> int:
    return _FARTHEST.index(one.state) if one.state else len(_FARTHEST)
