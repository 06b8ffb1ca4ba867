"""What a picture without a header may be told to be (`opentriage analyse --as`)."""

from inference.errors import CannotLook

# name -> modality, body part and view, as DICOM writes them
PICTURE_KINDS: dict[str, tuple[str, str, str | None]] = {
    "chest-xray": ("DX", "CHEST", "FRONTAL"),
    "limb-xray": ("DX", "EXTREMITY", None),
}


def picture_kind(as_kind: str) -> tuple[str, str, str | None]:
    """One of the names, or MODALITY/BODY PART[/VIEW]. Returns modality, body part, view.

    Raises CannotLook for anything else.
    """
    if as_kind in PICTURE_KINDS:
        return PICTURE_KINDS[as_kind]
    modality, _, rest = as_kind.partition("/")
    body_part, _, view = rest.partition("/")
    if not modality or not body_part:
        raise CannotLook("unreadable", "What the picture shows was not told in a way that the node knows.")
    return modality, body_part, view or None
