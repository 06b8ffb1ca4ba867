"""Random changes that a chest radiograph may undergo without changing what it shows.

No left-right flip by default: the heart has a side. Borders and corners are cut away on purpose, because markers,
collimation and film edges tell the hospital, not the disease. Every range and share stands in the recipe.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from training.fitting.acquisition import match_histograms, randomise_background
from training.recipe import AugmentPlan

Uniform = Callable[..., Tensor]
DEFAULT = AugmentPlan()


def augment(
    batch: Tensor,
    size: int,
    generator: torch.Generator,
    plan: AugmentPlan = DEFAULT,
    domains: Tensor | None = None,
) -> Tensor:
    """batch: (N, 1, H, W) float in [0, 1]; domains: (N,) numbers, for histogram matching. The generator lives where
    the batch does. Returns (N, 1, size, size) float in [0, 1]."""
    n = len(batch)

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return torch.empty(n, *shape, device=batch.device).uniform_(low, high, generator=generator)

    if plan.histogram_match and domains is not None:
        batch = match_histograms(batch, domains, uniform(0.0, 1.0) < plan.histogram_match, generator)
    if plan.background:
        batch = randomise_background(batch, uniform(0.0, 1.0) < plan.background, generator)
    out = _tone(_affine(batch, size, uniform, plan), uniform, plan)
    if plan.noise:
        noise = torch.randn(out.shape, generator=generator, device=out.device)
        out = (out + noise * uniform(0.0, plan.noise, 1, 1, 1)).clamp(0.0, 1.0)
    if plan.invert:
        out = torch.where(uniform(0.0, 1.0, 1, 1, 1) < plan.invert, 1.0 - out, out)
    return _erase_corners(out, uniform, plan.erase_corners) if plan.erase_corners else out


def _affine(batch: Tensor, size: int, uniform: Uniform, plan: AugmentPlan) -> Tensor:
    """Rotation, scale, shift and both crops as one resampling. In affine_grid's units the picture spans -1 to 1."""
    angle = uniform(-plan.rotation_deg, plan.rotation_deg) * (math.pi / 180.0)
    zoom_x, zoom_y = uniform(*plan.scale), uniform(*plan.scale)  # < 1 looks at less: the border is cropped away
    shift_x, shift_y = uniform(-plan.shift, plan.shift), uniform(-plan.shift, plan.shift)
    if plan.lung_crop != (1.0, 1.0):
        kept = uniform(*plan.lung_crop)
        zoom_x, zoom_y = zoom_x * kept, zoom_y * kept
    if plan.border_crop:
        left, right, top, bottom = (uniform(0.0, plan.border_crop) for _ in range(4))
        zoom_x, zoom_y = zoom_x * (1 - left - right), zoom_y * (1 - top - bottom)
        shift_x, shift_y = shift_x + left - right, shift_y + top - bottom
    if plan.mirror:
        zoom_x = torch.where(uniform(0.0, 1.0) < plan.mirror, -zoom_x, zoom_x)
    cos, sin = torch.cos(angle), torch.sin(angle)
    rows = (
        torch.stack([cos * zoom_x, -sin * zoom_y, shift_x], dim=1),
        torch.stack([sin * zoom_x, cos * zoom_y, shift_y], dim=1),
    )
    grid = F.affine_grid(torch.stack(rows, dim=1), [len(batch), 1, size, size], align_corners=False)
    return F.grid_sample(batch, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def _tone(batch: Tensor, uniform: Uniform, plan: AugmentPlan) -> Tensor:
    """Gamma, contrast and brightness, and for some of the pictures a blur: another detector, another window."""
    out = batch.clamp(0.0, 1.0)
    if plan.gamma != (1.0, 1.0):
        out = out.pow(uniform(*plan.gamma, 1, 1, 1))
    contrast = uniform(*plan.contrast, 1, 1, 1)
    brightness = uniform(-plan.brightness, plan.brightness, 1, 1, 1)
    out = ((out - 0.5) * contrast + 0.5 + brightness).clamp(0.0, 1.0)
    if not plan.blur:
        return out
    blurred = F.avg_pool2d(out, 3, stride=1, padding=1, count_include_pad=False)
    share = (uniform(plan.blur - 1.0, plan.blur, 1, 1, 1) / plan.blur).clamp(min=0.0)
    return torch.lerp(out, blurred, share)


def _erase_corners(batch: Tensor, uniform: Uniform, rate: float) -> Tensor:
    """Some of the pictures lose one corner patch to a random grey, where side markers and text stand."""
    height, width = batch.shape[2:]
    hit = uniform(0.0, 1.0) < rate
    h, w = (uniform(0.08, 0.25) * height).int(), (uniform(0.08, 0.25) * width).int()
    right, bottom, grey = uniform(0.0, 1.0) < 0.5, uniform(0.0, 1.0) < 0.3, uniform(0.0, 1.0)
    row, column = (torch.arange(n, device=batch.device).unsqueeze(0) for n in (height, width))
    rows = torch.where(bottom.unsqueeze(1), row >= height - h.unsqueeze(1), row < h.unsqueeze(1))
    columns = torch.where(right.unsqueeze(1), column >= width - w.unsqueeze(1), column < w.unsqueeze(1))
    patch = (rows.unsqueeze(2) & columns.unsqueeze(1) & hit.view(-1, 1, 1)).unsqueeze(1)
    return torch.where(patch, grey.view(-1, 1, 1, 1), batch)
