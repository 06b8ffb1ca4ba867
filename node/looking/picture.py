"""The verb `picture` of the look socket: a stored image as a PNG for a page, with the model's evidence over it.

The web role decodes nothing: what came from a stranger is opened by the decode child alone.
"""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
from PIL import Image

from inference.sandbox import Decoded
from ledger.records import ActivationMap, Region
from node.looking.wire import Refusal, Reply
from sr_writer.picture import Strength, blend, boxed, heat

SIDE_MIN, SIDE_MAX = 64, 1024
BOXES_MAX: Final = 50
CELLS_MAX: Final = 128  # of a side of a map
MASK: Final = 160  # strength at which what a segmentation model marked is coloured


class Pictures(Protocol):
    """What of the desk (node/looking/server.py) is needed here."""

    def path(self, question: Mapping[str, Any]) -> Path: ...
    def display(self, path: Path, side: int) -> Decoded: ...


def picture(desk: Pictures, question: Mapping[str, Any]) -> Reply:
    """path; side: longest side in pixels; overlay: None, or rows, columns (of the source), map {values, box}, regions
    [{box, probability}], mask (a path). The blob is a PNG. Raises Refusal."""
    side = min(max(int(question.get("side", SIDE_MAX)), SIDE_MIN), SIDE_MAX)
    decoded = desk.display(desk.path(question), side)
    if decoded.display is None:
        raise Refusal("no_pixels", "The image has no pixels that can be shown.")
    drawn = Image.fromarray(np.ascontiguousarray(decoded.display), mode="L")
    overlay = question.get("overlay")
    shown = _overlaid(drawn, decoded, overlay, desk) if isinstance(overlay, Mapping) else drawn
    out = io.BytesIO()
    shown.save(out, "PNG", compress_level=3)
    return Reply({"width": shown.width, "height": shown.height}, out.getvalue())


def _overlaid(drawn: Image.Image, decoded: Decoded, overlay: Mapping[str, Any], desk: Pictures) -> Image.Image:
    source = (decoded.rows, decoded.columns)
    if 0 in source:
        return drawn
    shown = drawn
    if isinstance(overlay.get("map"), Mapping):
        shown = blend(drawn, heat(_activation(overlay["map"]), source, (drawn.height, drawn.width)))
    if overlay.get("mask"):
        shown = blend(drawn, _marked(desk.path({"path": overlay["mask"]}), drawn))
    if regions := _regions(overlay.get("regions", ())):
        shown = boxed(shown, regions, source)
    return shown


def _activation(said: Mapping[str, Any]) -> ActivationMap:
    values = tuple(tuple(float(one) for one in row[:CELLS_MAX]) for row in said["values"][:CELLS_MAX])
    return ActivationMap(values, _box(said["box"]))


def _regions(said: Sequence[Mapping[str, Any]]) -> tuple[Region, ...]:
    return tuple(Region(_box(one["box"]), float(one["probability"])) for one in said[:BOXES_MAX])


def _box(said: Sequence[Any]) -> tuple[float, float, float, float]:
    top, left, bottom, right = (float(one) for one in said)
    return top, left, bottom, right


def _marked(path: Path, drawn: Image.Image) -> Strength:
    """A mask that we stored: 255 where marked."""
    with Image.open(path, formats=("PNG",)) as mask:
        fitted = mask.convert("L").resize(drawn.size, Image.Resampling.BILINEAR)
    return np.asarray(np.rint(np.asarray(fitted, np.float32) * (MASK / 255.0)), np.uint8)
