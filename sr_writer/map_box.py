"""A box out of an activation map: around its strongest evidence, for the picture alone.

Only of a model whose pointing was measured, and never as a region of a report: nobody is offered to track what a model
was not taught to draw.
"""

import numpy as np
from numpy.typing import NDArray

from ledger.records import ActivationMap, Finding
from sr_writer.picture import cells_in_image

SHARE_OF_PEAK = 0.5  # cells below this share of the strongest one lie outside
Box = tuple[float, float, float, float]  # (top, left, bottom, right) in source pixels, bottom and right exclusive


def box_from_map(finding: Finding, source_size: tuple[int, int]) -> Box | None:
    """Where a finding's map is strongest; None without a map, a measured pointing accuracy, or evidence in the image.

    source_size: (rows, columns) of the image.
    """
    if finding.activation is None or finding.pointing_accuracy is None or finding.regions or not finding.present:
        return None
    return box_around_peak(finding.activation, source_size)


def box_around_peak(activation: ActivationMap, source_size: tuple[int, int]) -> Box | None:
    """Around the cells that hang together with the strongest one, cut at the image's borders."""
    values = _of_the_image(activation, source_size)
    peak = values.max(initial=0.0)
    if peak <= 0.0:
        return None
    group = _together(values >= SHARE_OF_PEAK * peak, int(values.argmax()))
    rows, columns = (np.flatnonzero(group.any(axis=axis)) for axis in (1, 0))
    top, left, bottom, right = activation.box
    height, width = (bottom - top) / values.shape[0], (right - left) / values.shape[1]
    box = (
        max(top + float(rows[0]) * height, 0.0),
        max(left + float(columns[0]) * width, 0.0),
        min(top + float(rows[-1] + 1) * height, float(source_size[0])),
        min(left + float(columns[-1] + 1) * width, float(source_size[1])),
    )
    return box if box[0] < box[2] and box[1] < box[3] else None


def _of_the_image(activation: ActivationMap, source_size: tuple[int, int]) -> NDArray[np.float64]:
    """The grid, without evidence in cells that lie in a letterbox's padding altogether."""
    values = np.nan_to_num(np.asarray(activation.values, dtype=np.float64), nan=0.0)
    top, left, bottom, right = activation.box
    rows = cells_in_image(top, bottom, source_size[0], values.shape[0])
    columns = cells_in_image(left, right, source_size[1], values.shape[1])
    outside = (rows != np.arange(rows.size))[:, None] | (columns != np.arange(columns.size))
    return np.where(outside, 0.0, values)


def _together(strong: NDArray[np.bool_], start: int) -> NDArray[np.bool_]:
    """The strong cells that are reached from `start` (a flat index) by steps to a neighbour, not across corners."""
    group = np.zeros_like(strong)
    group[np.unravel_index(start, strong.shape)] = True
    while True:
        grown = group.copy()
        grown[1:] |= group[:-1]
        grown[:-1] |= group[1:]
        grown[:, 1:] |= group[:, :-1]
        grown[:, :-1] |= group[:, 1:]
        grown &= strong
        if np.array_equal(grown, group):
            return group
        group = grown
