"""A contact sheet of slices with the person's outline and the model's: what good, middling and poor look like."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

PERSON, MODEL = (70, 220, 120), (255, 150, 40)
CAPTION = 16  # pixels above each picture
GREYS = 32


@dataclass(frozen=True)
class Panel:
    """picture: (H, W) float in [0, 1]; person, model: (H, W) masks."""

    caption: str
    picture: NDArray[np.float32]
    person: NDArray[np.bool_]
    model: NDArray[np.bool_]


def contact_sheet(rows: Sequence[Sequence[Panel]], out: Path) -> None:
    """One PNG of few colours, all panels of one size; the person's outline is green, the model's orange."""
    height, width = rows[0][0].picture.shape
    sheet = Image.new("P", (width * max(map(len, rows)), (height + CAPTION) * len(rows) + CAPTION))
    sheet.putpalette([*(round(i * 255 / (GREYS - 1)) for i in range(GREYS) for _ in range(3)), *PERSON, *MODEL])
    draw = ImageDraw.Draw(sheet)
    draw.text((4, 2), "outline by the person", fill=GREYS)
    draw.text((160, 2), "outline by the model", fill=GREYS + 1)
    for i, row in enumerate(rows):
        for j, panel in enumerate(row):
            left, top = j * width, CAPTION + i * (height + CAPTION)
            draw.text((left + 4, top + 2), panel.caption, fill=GREYS - 1)
            sheet.paste(Image.fromarray(outlined(panel), mode="P"), (left, top + CAPTION))
    sheet.save(out, optimize=True)


def outlined(panel: Panel) -> NDArray[np.uint8]:
    """(H, W) of palette: greys up to GREYS - 1, then the person's colour, then the model's."""
    drawn = np.rint(panel.picture * (GREYS - 1)).astype(np.uint8)
    drawn[edge(panel.person)] = GREYS
    drawn[edge(panel.model)] = GREYS + 1
    return drawn


def edge(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The marked pixels with an unmarked neighbour above, below, left or right."""
    padded = np.pad(mask, 1)
    inner = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return np.asarray(mask & ~inner)
