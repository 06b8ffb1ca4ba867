"""From a model's mask in its own input back to the source image, and to a file."""

import hashlib
import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from inference.manifest import InputSpec
from ledger.records import SliceMask
from ledger.store import Store


def source_mask(
    probability: NDArray[np.float32], spec: InputSpec, source_shape: tuple[int, int], threshold: float
) -> NDArray[np.bool_]:
    """probability: (H, W) in (0, 1) over the input. Returns (rows, columns), True where it is `threshold` or more.

    The inverse of `fit_input.resize`: the padding of a letterbox is cut off, then the probability, never the mask, is
    resized, so that an outline does not turn into steps.
    """
    top, left, height, width = inner(spec, source_shape)
    part = np.ascontiguousarray(probability[top : top + height, left : left + width], np.float32)
    rows, columns = source_shape
    if part.shape != source_shape:
        picture = Image.fromarray(part, mode="F").resize((columns, rows), Image.Resampling.BILINEAR)
        part = np.asarray(picture, np.float32)
    return part >= np.float32(threshold)


def inner(spec: InputSpec, source_shape: tuple[int, int]) -> tuple[int, int, int, int]:
    """Where the source image lies in the input: (top, left, height, width), as `fit_input.resize` puts it."""
    if spec.fit == "squash":
        return 0, 0, spec.height, spec.width
    rows, columns = source_shape
    scale = min(spec.height / rows, spec.width / columns)
    height, width = max(1, round(rows * scale)), max(1, round(columns * scale))
    return (spec.height - height) // 2, (spec.width - width) // 2, height, width


def keep_mask(label: str, marked: NDArray[np.bool_], store: Store | None) -> SliceMask:
    """marked: (rows, columns). Stored as a PNG, 255 where marked; without a store only its pixels are counted."""
    path = ""
    if store is not None:
        buffer = io.BytesIO()
        Image.fromarray(marked.astype(np.uint8) * np.uint8(255), mode="L").save(buffer, "PNG", compress_level=3)
        content = buffer.getvalue()
        path = store.put("masks", hashlib.sha256(content).hexdigest(), ".png", content)
    return SliceMask(label, path, int(marked.sum()))
