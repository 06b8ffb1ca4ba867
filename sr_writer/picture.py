"""The picture every viewer can show: the worst image, a heat map or boxes over it, words above and below, never on it.

Drawn for a tired reader in a dark room: dark ground, few colours, large letters, the class in words as well as colour.
The heat map colours only positive evidence and fades out towards none, so that a weak map looks weak.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from ledger.records import ActivationMap, Finding, Region, TriagePriority
from sr_writer.words import BANNER, name_of, plus_minus

IMAGE_SIDE = 1024  # pixels of the longer side of the drawn image
MIN_WIDTH = 960
BANNER_HEIGHT = 132
FULL_COLOUR_LOGITS = 2.0  # evidence below this never reaches full colour, however flat the rest of the map
FADE_BELOW = 0.2  # of full colour: nothing is drawn
OPACITY = 0.55

_GROUND = (14, 17, 22)
_TEXT = (240, 243, 247)
_QUIET = (168, 178, 190)
_BANNERS = {TriagePriority.HIGH: ((176, 18, 34), (255, 255, 255)), TriagePriority.MEDIUM: ((245, 176, 24), (20, 16, 4))}
_WEAK, _STRONG = (255, 196, 0), (255, 48, 16)
_PAD = 24
_TOUCHES = 0.5  # pixels of the source: less of it in a cell is rounding
_MAP_TEXT = 24  # letter size of the sentence that explains the colours
_DASH = 34  # Pillow's own font has no dash: it is drawn

# Look-up tables from strength 0..255 to opacity and to red, green, blue.
_RAMP = [max(level / 255.0 - FADE_BELOW, 0.0) / (1.0 - FADE_BELOW) for level in range(256)]
_ALPHA = [round(255.0 * OPACITY * ramp**0.7) for ramp in _RAMP]
_COLOURS = [
    [round(weak + (strong - weak) * ramp) for ramp in _RAMP] for weak, strong in zip(_WEAK, _STRONG, strict=True)
]

Pixels = NDArray[np.uint8]  # (rows, columns, 3), RGB
Colour = tuple[int, int, int]
Strength = NDArray[np.uint8]  # (rows, columns), 0..255


@dataclass(frozen=True)
class Picture:
    """What is drawn. `footer` lines are small print; `source_size` is (rows, columns) of the source image."""

    priority: TriagePriority
    findings: tuple[Finding, ...]  # to be named, first one first
    mapped: Finding | None  # the one whose boxes are drawn or, where it has none, its activation
    source_size: tuple[int, int]
    footer: tuple[str, ...]
    box: tuple[float, float, float, float] | None = None  # drawn from the map, not by the model; in source pixels
    banner_only: bool = False  # words alone: neither the image nor any place in it


def draw(display: Image.Image | None, picture: Picture) -> Pixels:
    """The whole picture as RGB. display: 8-bit grey, larger = brighter; None draws a placard in its place."""
    if picture.banner_only:
        parts = [_banner(picture.priority, MIN_WIDTH), _legend(picture, MIN_WIDTH, False)]
        return _stacked(parts, MIN_WIDTH)
    body = _placard() if display is None else _overlaid(display, picture)
    width = max(MIN_WIDTH, body.width)
    parts = [_banner(picture.priority, width), _centred(body, width), _legend(picture, width, display is not None)]
    return _stacked(parts, width)


def _stacked(parts: Sequence[Image.Image], width: int) -> Pixels:
    canvas = Image.new("RGB", (width, sum(part.height for part in parts)), _GROUND)
    top = 0
    for part in parts:
        canvas.paste(part, (0, top))
        top += part.height
    return np.asarray(canvas, dtype=np.uint8)


def heat(activation: ActivationMap, source_size: tuple[int, int], size: tuple[int, int]) -> Strength:
    """Strength over a drawn image of `size` (rows, columns): 0..255, 0 where the map does not reach.

    255 stands for the map's own peak or FULL_COLOUR_LOGITS, whichever is more. Negative evidence is 0.
    """
    full = max(float(_positive(activation, source_size).max(initial=0.0)), FULL_COLOUR_LOGITS)
    over = evidence_over(activation, source_size, size)
    return np.asarray(np.rint(np.clip(over * (255.0 / full), 0.0, 255.0)), np.uint8)


def evidence_over(
    activation: ActivationMap, source_size: tuple[int, int], size: tuple[int, int]
) -> NDArray[np.float32]:
    """Positive evidence, in the map's own units, over an image of `source_size` drawn at `size` (both rows, columns).

    0 where the map does not reach; between its cells a smooth curve, which may leave their range a little.
    """
    values = _positive(activation, source_size)
    over = np.zeros(size, dtype=np.float32)
    rows = _overlap(activation.box[0], activation.box[2], source_size[0], size[0], values.shape[0])
    columns = _overlap(activation.box[1], activation.box[3], source_size[1], size[1], values.shape[1])
    if rows is None or columns is None:
        return over
    (y0, y1, from_row, to_row), (x0, x1, from_column, to_column) = rows, columns
    part = Image.fromarray(values).resize(
        (x1 - x0, y1 - y0), Image.Resampling.BICUBIC, box=(from_column, from_row, to_column, to_row)
    )
    over[y0:y1, x0:x1] = np.asarray(part)
    return over


def _positive(activation: ActivationMap, source_size: tuple[int, int]) -> NDArray[np.float32]:
    """The grid without its negative evidence, and without what was found in a letterbox's padding: cells that lie
    beyond the image altogether repeat their nearest neighbour in it."""
    values = np.maximum(np.nan_to_num(np.asarray(activation.values, dtype=np.float32)), np.float32(0.0))
    top, left, bottom, right = activation.box
    rows = cells_in_image(top, bottom, source_size[0], values.shape[0])
    columns = cells_in_image(left, right, source_size[1], values.shape[1])
    return values[np.ix_(rows, columns)]


def cells_in_image(low: float, high: float, source: int, cells: int) -> NDArray[np.intp]:
    """(cells,): for each cell of a grid from `low` to `high` itself, or the nearest that meets the image's pixels."""
    edges = np.linspace(low, high, cells + 1)
    inside = np.flatnonzero((edges[1:] > _TOUCHES) & (edges[:-1] < source - _TOUCHES))
    every = np.arange(cells)
    return np.clip(every, inside[0], inside[-1]) if inside.size else every


def _overlap(low: float, high: float, source: int, drawn: int, cells: int) -> tuple[int, int, float, float] | None:
    """Along one axis, where a map from `low` to `high` (source pixels) meets the drawn image.

    Returns first and last+1 drawn pixel, and the stretch of the grid's `cells` that lies there; None when they miss.
    """
    scale = drawn / source
    start, stop = max(round(low * scale), 0), min(round(high * scale), drawn)
    if start >= stop or high <= low:
        return None
    per_pixel = cells / ((high - low) * scale)
    begin = min(max((start - low * scale) * per_pixel, 0.0), float(cells))
    end = min(max((stop - low * scale) * per_pixel, 0.0), float(cells))
    return (start, stop, begin, end) if end > begin else None


def blend(grey: Image.Image, strength: Strength) -> Image.Image:
    """Colour over an 8-bit grey image of the same size; where the strength fades to nothing the grey is untouched."""
    level = Image.fromarray(strength)
    colour = Image.merge("RGB", [level.point(table) for table in _COLOURS])
    return Image.composite(colour, grey.convert("RGB"), level.point(_ALPHA))


def _overlaid(display: Image.Image, picture: Picture) -> Image.Image:
    grey = display.convert("L")
    scale = IMAGE_SIDE / max(grey.size)
    size = (max(round(grey.width * scale), 1), max(round(grey.height * scale), 1))
    drawn = grey.resize(size, Image.Resampling.LANCZOS)
    if picture.mapped is None or 0 in picture.source_size:
        return drawn.convert("RGB")
    if picture.mapped.regions:
        return boxed(drawn, picture.mapped.regions, picture.source_size)
    if picture.mapped.activation is None:
        return drawn.convert("RGB")
    coloured = blend(drawn, heat(picture.mapped.activation, picture.source_size, (drawn.height, drawn.width)))
    frame = (Region(picture.box, picture.mapped.probability),) if picture.box else ()
    return boxed(coloured, frame, picture.source_size)


def boxed(drawn: Image.Image, regions: Sequence[Region], source_size: tuple[int, int]) -> Image.Image:
    """Frames on an 8-bit image, grey or in colour, the most probable on top. They lie outside of their boxes: what is
    marked stays to be seen. source_size: (rows, columns) of the image that the boxes are told in."""
    image = drawn.convert("RGB")
    pen = ImageDraw.Draw(image)
    line = max(2, round(max(image.size) / 340))
    down, right = image.height / source_size[0], image.width / source_size[1]
    for region in reversed(regions):
        y0, x0, y1, x1 = (round(side * scale) for side, scale in zip(region.box, (down, right) * 2, strict=True))
        for reach, ink, width in ((line + 2, (0, 0, 0), line + 2), (line + 1, _WEAK, line)):
            pen.rectangle((x0 - reach, y0 - reach, x1 - 1 + reach, y1 - 1 + reach), outline=ink, width=width)
    return image


def _placard() -> Image.Image:
    image = Image.new("RGB", (MIN_WIDTH, MIN_WIDTH // 2), (30, 34, 40))
    text = "No picture: see the original image."
    ImageDraw.Draw(image).text((image.width // 2, image.height // 2), text, _TEXT, _font(36), anchor="mm")
    return image


def _centred(body: Image.Image, width: int) -> Image.Image:
    if body.width == width:
        return body
    image = Image.new("RGB", (width, body.height), (0, 0, 0))
    image.paste(body, ((width - body.width) // 2, 0))
    return image


def _banner(priority: TriagePriority, width: int) -> Image.Image:
    ground, ink = _BANNERS.get(priority, ((52, 60, 72), _TEXT))
    image = Image.new("RGB", (width, BANNER_HEIGHT), ground)
    pen = ImageDraw.Draw(image)
    small, large = _font(30), _font(84)
    pen.text((_PAD, 66), priority.value, ink, large, anchor="lm", stroke_width=2, stroke_fill=ink)
    pen.text((width - _PAD, 46), "AI triage priority", ink, small, anchor="rm")
    _dashed(pen, (width - _PAD, 90), BANNER, ink, small)
    return image


def _dashed(
    pen: ImageDraw.ImageDraw, end: tuple[int, int], text: str, ink: Colour, font: ImageFont.FreeTypeFont
) -> None:
    """Bold text that ends at `end` (x, middle y), its dashes drawn as lines."""
    x, y = end
    for i, part in enumerate(reversed(text.split(" – "))):
        if i:
            pen.line([(x - _DASH + 9, y + 1), (x - 9, y + 1)], fill=ink, width=4)
            x -= _DASH
        pen.text((x, y), part, ink, font, anchor="rm", stroke_width=1, stroke_fill=ink)
        x -= round(pen.textlength(part, font))


def _legend(picture: Picture, width: int, has_image: bool) -> Image.Image:
    rows: list[tuple[str, int, Colour]] = []
    for i, finding in enumerate(picture.findings):
        doubt = "  in doubt" if finding.in_doubt else ""
        rows.append((f"{name_of(finding)}  {plus_minus(finding)}{doubt}", 44 if i == 0 else 32, _TEXT))
    rows += [] if picture.banner_only else [(_map_text(picture, has_image), _MAP_TEXT, _TEXT)]
    rows += [(line, 22, _QUIET) for line in picture.footer]
    lines = [(part, size, ink) for text, size, ink in rows for part in _wrapped(text, size, width - 2 * _PAD)]
    bar = 58 if has_image and picture.mapped is not None and not picture.mapped.regions else 0
    image = Image.new("RGB", (width, sum(_line(size) for _, size, _ in lines) + bar + 2 * _PAD), _GROUND)
    pen = ImageDraw.Draw(image)
    y = _PAD
    for i, (text, size, ink) in enumerate(lines):
        pen.text((_PAD, y + _line(size) // 2), text, ink, _font(size), anchor="lm")
        y += _line(size)
        if bar and size == _MAP_TEXT and (i + 1 == len(lines) or lines[i + 1][1] != _MAP_TEXT):
            _colour_bar(image, y + 6, width)
            y += bar
    return image


def _map_text(picture: Picture, has_image: bool) -> str:
    if picture.mapped is None or not has_image:
        return "No heat map."
    label = name_of(picture.mapped).lower()
    if picture.mapped.regions:
        shown = "box" if len(picture.mapped.regions) == 1 else "boxes"
        return f"Yellow {shown}: where the model marked {label}. Other places may be affected too."
    frame = " The frame was drawn around its peak, not by the model." if picture.box else ""
    return f"Colour: where the model found evidence for {label}. It is not an outline of disease.{frame}"


def _colour_bar(image: Image.Image, top: int, width: int) -> None:
    """The overlay's own colours on mid grey, from weak to strong."""
    pen = ImageDraw.Draw(image)
    left = round(pen.textlength("weaker", _font(22))) + _PAD + 14
    length, height = min(420, width // 2), 26
    steps = np.rint(np.linspace(255.0 * FADE_BELOW, 255.0, length)).astype(np.uint8)
    bar = blend(Image.new("L", (length, height), 96), np.repeat(steps[None, :], height, axis=0))
    pen.text((_PAD, top + height // 2), "weaker", _QUIET, _font(22), anchor="lm")
    image.paste(bar, (left, top))
    pen.text((left + length + 14, top + height // 2), "stronger", _QUIET, _font(22), anchor="lm")


def _wrapped(text: str, size: int, width: int) -> Sequence[str]:
    lines = [""]
    for word in text.split(" "):
        longer = f"{lines[-1]} {word}" if lines[-1] else word
        if lines[-1] and _font(size).getlength(longer) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines


def _line(size: int) -> int:
    return round(size * 1.4)


@cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size)
    if not isinstance(font, ImageFont.FreeTypeFont):
        raise RuntimeError("Pillow was built without FreeType: no letters can be drawn")
    return font
