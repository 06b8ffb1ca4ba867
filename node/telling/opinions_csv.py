"""What readers said of findings as a table that `opentriage validate` reads."""

import csv
import io
from collections.abc import Sequence

from ledger.opinions import LabelledImage
from ledger.store import Store

_FORMULA = ("=", "+", "-", "@", "\t", "\r")  # what a spreadsheet would run


def as_csv(images: Sequence[LabelledImage], store: Store) -> str:
    """One line an image: where it is stored, a number for its patient, its sender (as `site`), and by label 1, 0, or
    nothing where readers contradict each other or said nothing; then how many opinions that rests on.

    An image that is stored no more is left out: nothing could be validated on it.
    """
    labels = sorted({label for image in images for label in image.truth})
    out = io.StringIO()
    table = csv.writer(out, lineterminator="\n")
    table.writerow(["image", "patient", "site", *labels, "opinions", "disagreements"])
    for image in images:
        path = store.path(image.path).absolute()
        if path.is_file():
            truths = [_cell(image.truth.get(label)) for label in labels]
            row = [str(path), image.patient, _plain(image.sender), *truths, image.opinions, image.disagreements]
            table.writerow(row)
    return out.getvalue()


def _cell(truth: bool | None) -> str:
    return "" if truth is None else str(int(truth))


def _plain(text: str) -> str:
    """A sender chooses its own AE title: it is never a formula."""
    return f"'{text}" if text.startswith(_FORMULA) else text
