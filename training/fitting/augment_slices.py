"""Random changes to a slice of a head and its mask together. A head may be mirrored: neither side is the tumour's."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

ROTATION_DEGREES = 20.0
SMALLEST_SPAN = 1e-3


class Draw:
    """Uniform numbers per picture, out of one generator."""

    def __init__(self, n: int, generator: torch.Generator) -> None:
        self.n, self.generator = n, generator

    def uniform(self, low: float, high: float, *shape: int) -> Tensor:
        return torch.empty(self.n, *shape).uniform_(low, high, generator=self.generator)

    def field(self, channels: int, cells: int, size: int) -> Tensor:
        """(N, channels, size, size): smooth noise of `cells` x `cells`, about -1 to 1."""
        coarse = self.uniform(-1.0, 1.0, channels, cells, cells)
        return F.interpolate(coarse, size=(size, size), mode="bicubic", align_corners=True)


def augment_slices(
    images: Tensor, masks: Tensor, size: int, percentiles: tuple[float, float], generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """images: (N, 1, H, W) float in [0, 1], stretched; masks: the same in {0, 1}. Returns both at (N, 1, size, size).

    What comes out has been stretched to its percentiles again, as the node stretches what it is given.
    """
    draw = Draw(len(images), generator)
    shrink = max(1, images.shape[-1] // size)
    images, masks = (F.avg_pool2d(part, shrink) if shrink > 1 else part for part in (images, masks))
    grid = _grid(draw, size)
    moved = F.grid_sample(torch.cat([images, masks], dim=1), grid, mode="bilinear", align_corners=False)
    return stretch_batch(_tone(moved[:, :1], draw), percentiles), (moved[:, 1:] > 0.5).float()


def stretch_batch(images: Tensor, percentiles: tuple[float, float]) -> Tensor:
    """inference.fit_input.stretch on a batch, its percentiles taken from every fourth row and column."""
    some = images[:, :, ::4, ::4].flatten(1)
    low, high = torch.quantile(some, torch.tensor(percentiles) / 100.0, dim=1).view(2, -1, 1, 1, 1)
    return ((images - low) / (high - low).clamp(min=SMALLEST_SPAN)).clamp(0.0, 1.0)


def _grid(draw: Draw, size: int) -> Tensor:
    """Where each pixel is fetched from: turned, scaled, shifted, bent, and for half of the slices mirrored."""
    angle = draw.uniform(-ROTATION_DEGREES, ROTATION_DEGREES) * (math.pi / 180.0)
    zoom = torch.exp(draw.uniform(math.log(0.8), math.log(1.25)))
    aspect = torch.exp(draw.uniform(-0.1, 0.1))
    mirror = torch.where(draw.uniform(0.0, 1.0) < 0.5, -1.0, 1.0)
    across, along = zoom * aspect, zoom / aspect
    cos, sin = torch.cos(angle), torch.sin(angle)
    theta = torch.stack(
        [
            torch.stack([mirror * cos * across, -sin * along, draw.uniform(-0.1, 0.1)], dim=1),
            torch.stack([mirror * sin * across, cos * along, draw.uniform(-0.1, 0.1)], dim=1),
        ],
        dim=1,
    )
    grid = F.affine_grid(theta, [draw.n, 1, size, size], align_corners=False)
    bend = draw.field(2, 5, size) * draw.uniform(0.0, 0.05, 1, 1, 1)
    return grid + bend.permute(0, 2, 3, 1)


def _tone(images: Tensor, draw: Draw) -> Tensor:
    """Another scanner: coil shading, gamma, a softer point spread, noise that is there in air as well."""
    shading = torch.exp(draw.field(1, 4, images.shape[-1]) * draw.uniform(0.0, 0.5, 1, 1, 1))
    out = (images * shading).clamp(0.0, 1.5) / 1.5
    out = out.pow(torch.exp(draw.uniform(math.log(0.6), math.log(1.6), 1, 1, 1)))
    blurred = F.avg_pool2d(out, 3, stride=1, padding=1, count_include_pad=False)
    share = draw.uniform(-1.0, 1.0, 1, 1, 1).clamp(min=0.0)
    spread = draw.uniform(-0.03, 0.02, 1, 1, 1).clamp(min=0.0)
    noise = torch.randn(out.shape, generator=draw.generator) * spread
    return (out * (1 - share) + blurred * share + noise).abs()
