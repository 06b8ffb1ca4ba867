"""Limb radiographs with boxes around fractures (Roboflow "Science Research 2022: Bone Fracture Detection" v7).

What counts as a fracture: every box of all four classes. The set is two sets in one. In one every box is `fracture`
(1), mostly hands; in the other, mostly long bones, the class tells the kind of fracture: `angle` (0, the bone is bent
at it), `line` (2, a fracture line), `messed_up_angle` (3, displaced or in pieces). A picture without a box is not
proven whole: some show a fracture that nobody boxed.

Pictures are augmented copies (turned, mirrored, brightened) of fewer originals. A source is what the set names one,
and may hold several originals; `SAME_PICTURE` joins the sources that hold copies of one and the same picture.
"""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from inference.fit_input import resize, stretch
from training.data.splits import split_of

CLASSES = ("angle", "fracture", "line", "messed_up_angle")  # by the number in a box file
# Sources with a copy of the same picture, or of pictures too alike to tell: found by correlating high-pass filtered
# thumbnails (64 x 64, correlation 0.8 or more) over turns and mirrorings; each pair was looked at.
SAME_PICTURE = (
    ("7", "10", "223"), ("131", "231"), ("2", "3"), ("132", "234"), ("4", "180"), ("156", "157"), ("16", "147"),
    ("35", "66", "235"), ("112", "146"), ("137", "165"), ("88", "173"), ("170", "184"), ("43", "120"),
    ("113", "145"), ("15", "201"), ("20", "117"), ("5", "83"), ("71", "226"), ("65", "67"), ("62", "99"),
    ("174", "257"),
)  # fmt: skip

Boxes = NDArray[np.float32]  # (K, 4): top, left, bottom, right in [0, 1]


@dataclass(frozen=True)
class BoxedImages:
    """N letterboxed pictures in memory. boxes: of each picture (K, 4) in [0, 1] of the square input."""

    names: tuple[str, ...]
    pixels: NDArray[np.uint8]  # (N, size, size)
    boxes: tuple[Boxes, ...]
    groups: tuple[str, ...]  # sources, joined where they share a picture
    shapes: tuple[tuple[int, int], ...]  # (rows, columns) of the files

    def __len__(self) -> int:
        return len(self.names)

    def where(self, mask: NDArray[np.bool_]) -> "BoxedImages":
        index = np.flatnonzero(mask).tolist()
        return BoxedImages(
            tuple(self.names[i] for i in index),
            self.pixels[index],
            tuple(self.boxes[i] for i in index),
            tuple(self.groups[i] for i in index),
            tuple(self.shapes[i] for i in index),
        )


def read_fracture(folder: Path, size: int, percentiles: tuple[float, float]) -> BoxedImages:
    """Every picture as the node shows it to the model, kept as 8 bit."""
    with (folder / "labels.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    pixels = np.empty((len(rows), size, size), np.uint8)
    boxes, shapes = [], []
    for i, row in enumerate(tqdm(rows, desc="reading", unit="image", mininterval=5)):
        with Image.open(folder / "images" / row["image"]) as picture:
            grey = np.asarray(picture.convert("L"), np.float32) / np.float32(255.0)
        pixels[i] = np.round(stretch(resize(grey, size, size, "letterbox"), *percentiles) * 255.0)
        shapes.append((grey.shape[0], grey.shape[1]))
        file_boxes = read_boxes((folder / "boxes" / row["image"]).with_suffix(".txt"))
        boxes.append(to_letterbox(file_boxes, shapes[-1], size))
    groups = joined([row["source"] for row in rows])
    return BoxedImages(tuple(row["image"] for row in rows), pixels, tuple(boxes), groups, tuple(shapes))


def read_boxes(path: Path) -> Boxes:
    """A YOLO file (class, centre x, centre y, width, height of the picture). Returns (K, 4), all classes alike."""
    rows = [[float(word) for word in line.split()] for line in path.read_text().splitlines() if line.strip()]
    if any(len(row) != 5 or int(row[0]) not in range(len(CLASSES)) for row in rows):
        raise ValueError(f"{path}: not a line of class, x, y, width, height")
    x, y, width, height = np.array(rows, np.float32).reshape(-1, 5).T[1:]
    corners = np.stack([y - height / 2, x - width / 2, y + height / 2, x + width / 2], axis=1)
    return np.asarray(np.clip(corners, 0.0, 1.0), np.float32)


def to_letterbox(boxes: Boxes, shape: tuple[int, int], size: int) -> Boxes:
    """From parts of a picture of `shape` (rows, columns) to parts of the square that it is letterboxed into."""
    rows, columns = shape
    scale = min(size / rows, size / columns)
    height, width = max(1, round(rows * scale)), max(1, round(columns * scale))
    top, left = (size - height) // 2, (size - width) // 2
    span = np.array([height, width, height, width], np.float32)
    return np.asarray((boxes * span + np.array([top, left, top, left], np.float32)) / np.float32(size), np.float32)


def joined(sources: Sequence[str], same: Sequence[Sequence[str]] = SAME_PICTURE) -> tuple[str, ...]:
    """The group of each image: its source, or the first of the sources that share pictures with it."""
    first: dict[str, str] = {}
    for names in same:
        heads = {first.get(name, name) for name in names}
        head = min(heads)
        first = {name: head if at in heads else at for name, at in first.items()} | dict.fromkeys(names, head)
    return tuple(first.get(source, source) for source in sources)


def split(data: BoxedImages, fractions: Mapping[str, float], salt: str) -> dict[str, BoxedImages]:
    """Cut by group, so that no copy of a picture crosses. fractions: name -> share of the groups, summing to 1."""
    membership = np.array([split_of(group, dict(fractions), salt) for group in data.groups])
    return {name: data.where(membership == name) for name in fractions}
