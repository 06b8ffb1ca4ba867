"""Several views of one picture, and several members of one ensemble: how their outputs become those of one model.

Each member sees each view of the manifest's `input.test_time`, of which the first is the picture as it is:

- scores: all passes stand in a row on the T axis, member by member and within a member view by view, so that the mean
  is over all of them and the sd and the mutual information hold what views and members disagree about;
  T = passes * views * members;
- cam and masks: the mean over the members of the mean over the views `as_is` and `mirrored`, the latter mirrored back.
  Other views move a grid by less than its cells or cut its border off, so they have no say in where things are;
- boxes and their scores: those of the first member for the picture as it is (boxes of two views have no common order);
- features: those of the first member for the picture as it is: the gate's axes belong to that member.

A view is made of the finished tensor, so that percentiles and histogram are those of the picture itself; what it does
not cover is filled with the darkest value.
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from inference.manifest import InputSpec, View
from inference.outputs import Outputs, Role

ZOOM = 1.08  # "closer" shows 1 / ZOOM of each side; "wider" leaves a dark border
SHIFT = 0.04  # of the side
MAPS: tuple[Role, ...] = ("cam", "masks")
Run = Callable[[NDArray[np.float32]], Outputs]


def seen_as(images: NDArray[np.float32], view: View, darkest: float) -> NDArray[np.float32]:
    """images: (N, 1, H, W) float32. Returns them as seen in this view, of the same shape."""
    if view == "as_is":
        return images
    if view == "mirrored":
        return np.ascontiguousarray(images[..., ::-1])
    if view in ("closer", "wider"):
        return _zoomed(images, ZOOM if view == "closer" else 1.0 / ZOOM, darkest)
    return _shifted(images, view, darkest)


def run_all(members: Sequence[Run], images: NDArray[np.float32], spec: InputSpec) -> Outputs:
    """Each member over each view; images: (N, 1, H, W) float32 in the value range."""
    told = [[run(seen_as(images, view, spec.value_range[0])) for view in spec.test_time] for run in members]
    first = told[0][0]
    if len(members) == len(spec.test_time) == 1:
        return first
    scores = np.concatenate([outputs.scores for views in told for outputs in views], axis=1)
    places = {
        role: _mean_map(role, told, spec.test_time) if role in MAPS else first.places[role] for role in first.places
    }
    return Outputs(scores, first.features, places)


def total_passes(passes: int, spec: InputSpec, members: int) -> int:
    """How many passes stand on the T axis of a package's scores."""
    return passes * len(spec.test_time) * members


def _mean_map(role: Role, told: Sequence[Sequence[Outputs]], views: Sequence[View]) -> NDArray[np.float32]:
    maps = []
    for member in told:
        for outputs, view in zip(member, views, strict=True):
            if view == "as_is":
                maps.append(outputs.places[role])
            elif view == "mirrored":
                maps.append(outputs.places[role][..., ::-1])
    return np.asarray(np.mean(maps, axis=0, dtype=np.float64), np.float32)


def _shifted(images: NDArray[np.float32], view: View, darkest: float) -> NDArray[np.float32]:
    """What is seen moves to the side that the view is named after."""
    axis, sign = {"left": (3, -1), "right": (3, 1), "up": (2, -1), "down": (2, 1)}[view]
    side = images.shape[axis]
    by = max(1, round(SHIFT * side))
    moved = np.roll(images, sign * by, axis)
    border = [slice(None)] * 4
    border[axis] = slice(0, by) if sign > 0 else slice(side - by, side)
    moved[tuple(border)] = darkest
    return moved


def _zoomed(images: NDArray[np.float32], by: float, darkest: float) -> NDArray[np.float32]:
    """About the centre, bilinear; by > 1 enlarges."""
    for axis in (2, 3):
        images = _zoomed_along(images, axis, by, darkest)
    return images


def _zoomed_along(images: NDArray[np.float32], axis: int, by: float, darkest: float) -> NDArray[np.float32]:
    side = images.shape[axis]
    centre = (side - 1) / 2.0
    at = (np.arange(side) - centre) / by + centre
    below = np.clip(np.floor(at).astype(np.int64), 0, side - 2)
    shape = [1, 1, 1, 1]
    shape[axis] = side
    share = np.clip(at - below, 0.0, 1.0).astype(np.float32).reshape(shape)
    one, other = np.take(images, below, axis), np.take(images, below + 1, axis)
    inside = ((at >= -0.5) & (at <= side - 0.5)).reshape(shape)
    return np.where(inside, one + (other - one) * share, np.float32(darkest))
