"""Random changes of limb radiographs that carry their boxes along.

A limb may lie any way round and be the left or the right one: pictures are mirrored, turned by quarter turns and by
any small angle, enlarged or reduced, shifted. A box follows as the ellipse inside it does, which stays closer to the
fracture than the hull of its turned corners.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from training.data.fracture import Boxes

MOSTLY_INSIDE = 0.6  # share of a box's area that must stay in the picture, or the box is dropped


@dataclass(frozen=True)
class Changes:
    """Greatest changes: degrees, factors of size, share of a side, tone."""

    rotation_deg: float = 15.0
    scale: tuple[float, float] = (0.8, 1.3)
    shift: float = 0.1
    quarter_turns: float = 0.1  # share of the pictures that get one, two or three
    gamma: tuple[float, float] = (0.6, 1.6)
    contrast: tuple[float, float] = (0.7, 1.3)
    brightness: float = 0.1
    noise: float = 0.03


def augment(
    batch: Tensor, boxes: list[Boxes], generator: torch.Generator, changes: Changes = Changes()
) -> tuple[Tensor, list[Boxes]]:
    """batch: (N, 1, S, S) float in [0, 1]; boxes: (K, 4) each, in [0, 1]. Returns both, changed alike."""
    forward = _matrices(len(batch), generator, changes)  # output from input, in [-1, 1] coordinates (x, y)
    grid = F.affine_grid(torch.linalg.inv(forward)[:, :2], list(batch.shape), align_corners=False)
    moved = F.grid_sample(batch, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    followed = [move_boxes(own, matrix) for own, matrix in zip(boxes, forward.numpy(), strict=True)]
    return _tone(moved, generator, changes), followed


def move_boxes(boxes: Boxes, matrix: np.ndarray) -> Boxes:
    """boxes: (K, 4) top, left, bottom, right in [0, 1]; matrix: (3, 3), (x, y) in [-1, 1] to the same."""
    centre = (boxes[:, [1, 0]] + boxes[:, [3, 2]]) - 1.0  # (K, 2): x, y in [-1, 1]
    half = boxes[:, [3, 2]] - boxes[:, [1, 0]]  # half sides in that scale
    moved = centre @ matrix[:2, :2].T + matrix[:2, 2]
    reach = np.sqrt((half**2) @ (matrix[:2, :2].T ** 2))
    low, high = (moved - reach + 1.0) / 2.0, (moved + reach + 1.0) / 2.0
    kept_low, kept_high = low.clip(0.0, 1.0), high.clip(0.0, 1.0)
    inside = (kept_high - kept_low).prod(axis=1) >= MOSTLY_INSIDE * (high - low).prod(axis=1)
    corners = np.concatenate([kept_low[:, ::-1], kept_high[:, ::-1]], axis=1)
    return np.asarray(corners[inside], np.float32)


def _matrices(n: int, generator: torch.Generator, changes: Changes) -> Tensor:
    """(N, 3, 3)."""

    def uniform(low: float, high: float) -> Tensor:
        return torch.empty(n).uniform_(low, high, generator=generator)

    turns = torch.randint(1, 4, (n,), generator=generator) * (uniform(0.0, 1.0) < changes.quarter_turns)
    angle = (uniform(-changes.rotation_deg, changes.rotation_deg) + 90.0 * turns) * (math.pi / 180.0)
    size = uniform(math.log(changes.scale[0]), math.log(changes.scale[1])).exp()
    mirror = torch.where(uniform(0.0, 1.0) < 0.5, -1.0, 1.0)
    shift_x, shift_y = (uniform(-2.0 * changes.shift, 2.0 * changes.shift) for _ in range(2))
    cos, sin, zero, one = torch.cos(angle) * size, torch.sin(angle) * size, torch.zeros(n), torch.ones(n)
    rows = [[cos * mirror, -sin, shift_x], [sin * mirror, cos, shift_y], [zero, zero, one]]
    return torch.stack([torch.stack(row, dim=1) for row in rows], dim=1)


def _tone(batch: Tensor, generator: torch.Generator, changes: Changes) -> Tensor:
    n = len(batch)

    def uniform(low: float, high: float) -> Tensor:
        return torch.empty(n, 1, 1, 1).uniform_(low, high, generator=generator)

    out = batch.clamp(0.0, 1.0).pow(uniform(*changes.gamma))
    out = (out - 0.5) * uniform(*changes.contrast) + 0.5 + uniform(-changes.brightness, changes.brightness)
    noise = torch.randn(out.shape, generator=generator) * uniform(0.0, changes.noise)
    return (out + noise).clamp(0.0, 1.0)
