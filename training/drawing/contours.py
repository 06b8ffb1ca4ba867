"""A contact sheet of slices with the person's outline and the model's: what good, middling and poor look like."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

PERSON, MODEL = (70, 220, 120), (255, 150, 40)
CAPTION = 16  # pixels above each picture
GREY = (230, 230, 230)


@dataclass(frozen=True)
class Panel:
    """picture: (H, W) float in [0, 1]; person, model: (H, W) masks."""

    caption: str
    picture: NDArray[np.float32]
    person: NDArray[np.bool_]
    model: NDArray[np.bool_]


def contact_sheet(rows: Sequence[Sequence[Panel]], out: Path) -> None:
    """One PNG, all panels of one size; the person's outline is green, the model's orange."""
    height, width = rows[0][0].picture.shape
    sheet = Image.new("RGB", (width * max(map(len, rows)), (height + CAPTION) * len(rows) + CAPTION))
    draw = ImageDraw.Draw(sheet)
    draw.text((4, 2), "outline by the person", fill=PERSON)
    draw.text((160, 2), "outline by the model", fill=MODEL)
    for i, row in enumerate(rows):
        for j, panel in enumerate(row):
            left, top = j * width, CAPTION + i * (height + CAPTION)
            draw.text((left + 4, top + 2), panel.caption, fill=GREY)
            sheet.paste(Image.fromarray(outlined(panel)), (left, top + CAPTION))
    sheet.quantize(64).save(out, optimize=True)


def outlined(panel: Panel) -> NDArray[np.uint8]:
    """(H, W, 3)."""
    colour = np.repeat(np.rint(panel.picture * 255.0).astype(np.uint8)[..., np.newaxis], 3, axis=2)
    colour[edge(panel.person)] = PERSON
    colour[edge(panel.model)] = MODEL
    return colour


def edge(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The marked pixels with an unmarked neighbour above, below, left or right."""
    padded = np.pad(mask, 1)
    inner = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return np.asarray(mask & ~inner)
