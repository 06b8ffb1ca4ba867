"""A contact sheet of radiographs with the set's boxes and the model's."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from training.data.fracture import Boxes

TRUE, MODEL = (70, 220, 120), (255, 150, 40)
GREY = (230, 230, 230)
CAPTION, SIDE = 18, 224  # pixels


@dataclass(frozen=True)
class Framed:
    """pixels: (S, S) uint8; boxes in [0, 1] of it."""

    caption: str
    pixels: NDArray[np.uint8]
    true: Boxes
    drawn: Boxes


def contact_sheet(pictures: Sequence[Framed], columns: int, out: Path) -> None:
    """One PNG: the set's boxes green, the model's orange."""
    rows = -(-len(pictures) // columns)
    sheet = Image.new("RGB", (SIDE * columns, (SIDE + CAPTION) * rows + CAPTION))
    pen = ImageDraw.Draw(sheet)
    pen.text((4, 3), "box of the set", fill=TRUE)
    pen.text((120, 3), "box of the model", fill=MODEL)
    for i, one in enumerate(pictures):
        left, top = i % columns * SIDE, CAPTION + i // columns * (SIDE + CAPTION)
        pen.text((left + 4, top + 3), one.caption, fill=GREY)
        sheet.paste(framed(one), (left, top + CAPTION))
    sheet.quantize(palette=_palette(), dither=Image.Dither.NONE).save(out, optimize=True)


def _palette() -> Image.Image:
    """Sixty-odd greys and the two colours, which a palette of the commonest colours would lose."""
    greys = [(level, level, level) for level in range(0, 256, 4)]
    palette = Image.new("P", (1, 1))
    palette.putpalette([value for colour in (*greys, TRUE, MODEL) for value in colour])
    return palette


def framed(one: Framed) -> Image.Image:
    picture = Image.fromarray(one.pixels).resize((SIDE, SIDE), Image.Resampling.LANCZOS).convert("RGB")
    pen = ImageDraw.Draw(picture)
    for boxes, ink in ((one.true, TRUE), (one.drawn, MODEL)):
        for top, left, bottom, right in (boxes * SIDE).round().tolist():
            pen.rectangle((left, top, max(right, left + 1), max(bottom, top + 1)), outline=ink, width=1)
    return picture
