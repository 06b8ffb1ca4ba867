"""Random changes that a chest radiograph may undergo without changing what it shows.

No left-right flip: the heart has a side. Borders and corners are cut away on purpose, because markers, collimation
and film edges tell the hospital, not the disease.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def augment(batch: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """batch: (N, 1, H, W) float in [0, 1]. Returns (N, 1, size, size) float in [0, 1]."""
    n = len(batch)

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return torch.empty(n, *shape).uniform_(low, high, generator=generator)

    out = _tone(_affine(batch, size, uniform), uniform)
    noise = torch.randn(out.shape, generator=generator) * uniform(0.0, 0.03, 1, 1, 1)
    return _erase_corners((out + noise).clamp(0.0, 1.0), uniform)


def _affine(batch: Tensor, size: int, uniform) -> Tensor:  # type: ignore[no-untyped-def]
    angle = uniform(-10.0, 10.0) * (math.pi / 180.0)
    zoom_x, zoom_y = uniform(0.82, 1.08), uniform(0.82, 1.08)  # < 1 looks at less: the border is cropped away
    shift_x, shift_y = uniform(-0.12, 0.12), uniform(-0.12, 0.12)
    cos, sin = torch.cos(angle), torch.sin(angle)
    theta = torch.stack(
        [
            torch.stack([cos * zoom_x, -sin * zoom_y, shift_x], dim=1),
            torch.stack([sin * zoom_x, cos * zoom_y, shift_y], dim=1),
        ],
        dim=1,
    )
    grid = F.affine_grid(theta, [len(batch), 1, size, size], align_corners=False)
    return F.grid_sample(batch, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def _tone(batch: Tensor, uniform) -> Tensor:  # type: ignore[no-untyped-def]
    """Gamma, contrast and brightness, and for half of the pictures a blur: another detector, another window."""
    gamma = uniform(0.65, 1.5, 1, 1, 1)
    contrast = uniform(0.75, 1.25, 1, 1, 1)
    brightness = uniform(-0.12, 0.12, 1, 1, 1)
    out = ((batch.clamp(0.0, 1.0).pow(gamma) - 0.5) * contrast + 0.5 + brightness).clamp(0.0, 1.0)
    blurred = F.avg_pool2d(out, 3, stride=1, padding=1, count_include_pad=False)
    share = uniform(-1.0, 1.0, 1, 1, 1).clamp(min=0.0)
    return out * (1 - share) + blurred * share


def _erase_corners(batch: Tensor, uniform) -> Tensor:  # type: ignore[no-untyped-def]
    """Half of the pictures lose one corner patch to a random grey, where side markers and text stand."""
    height, width = batch.shape[2:]
    hit = uniform(0.0, 1.0) < 0.5
    h, w = (uniform(0.08, 0.25) * height).int(), (uniform(0.08, 0.25) * width).int()
    right, bottom, grey = uniform(0.0, 1.0) < 0.5, uniform(0.0, 1.0) < 0.3, uniform(0.0, 1.0)
    for i in torch.nonzero(hit).flatten().tolist():
        rows = slice(height - int(h[i]), height) if bottom[i] else slice(0, int(h[i]))
        columns = slice(width - int(w[i]), width) if right[i] else slice(0, int(w[i]))
        batch[i, :, rows, columns] = grey[i]
    return batch
