"""What a reader calls an image of a study: "PA", or its place in the series list; never its UID."""

from collections.abc import Collection

from ledger.records import InstanceRef
from ledger.store import Store
from sr_writer.errors import SourceUnreadable
from sr_writer.source import read_view
from sr_writer.words import sayable


def image_names(images: Collection[InstanceRef], store: Store) -> dict[str, str]:
    """SOP Instance UID -> name: the view where no other image has the same, else with series and instance number.

    Of one image alone none is read. An image whose header says nothing of the kind has none.
    """
    if len(images) < 2:
        return {}
    found = {image.sop_instance_uid: _view_and_place(image, store) for image in images}
    views = [view for view, _ in found.values()]
    return {
        uid: view if view and views.count(view) == 1 else ", ".join(part for part in (view, place) if part)
        for uid, (view, place) in found.items()
        if view or place
    }


def _view_and_place(image: InstanceRef, store: Store) -> tuple[str, str]:
    try:
        view, series, instance = read_view(store.path(image.path))
    except SourceUnreadable:
        return "", ""
    return sayable(view), f"Se {series}, Im {instance}" if series is not None and instance is not None else ""
