"""What tells the hospital from the disease, made random: the histogram and what lies outside the body."""

import torch
import torch.nn.functional as F
from torch import Tensor

LEVELS = 256
KNOTS = 16  # of the tone curve: enough for another detector, too few to tear neighbouring greys apart
MIDDLE = 0.15  # of each side is left out when grey levels are compared: how much air a film shows is no tone
STEP = 4  # every 4th pixel each way is enough to know a histogram
GRID = 32  # the background is found on a picture of about 32 x 32
DARK = 0.12  # of the range: air beside the body, after the percentiles


def match_histograms(batch: Tensor, domains: Tensor, chosen: Tensor, generator: torch.Generator) -> Tensor:
    """Give chosen pictures the tone of a random picture of another domain in the batch, in part or in full: a rising
    curve that takes the quantiles of the one's middle to those of the other's, and 0 to 0 and 1 to 1.

    batch: (N, 1, H, W) in [0, 1]; domains, chosen: (N,). A picture without a partner stays as it is."""
    n, height, width = len(batch), batch.shape[2], batch.shape[3]
    other = (domains.unsqueeze(0) != domains.unsqueeze(1)).float()
    hit = torch.nonzero(chosen & (other.sum(dim=1) > 0)).flatten()
    strength = torch.empty(n, 1, device=batch.device).uniform_(0.5, 1.0, generator=generator)[hit]
    if not len(hit):
        return batch
    partner = torch.multinomial(other[hit], 1, generator=generator).flatten()
    rows, columns = int(MIDDLE * height), int(MIDDLE * width)
    middle = batch[:, 0, rows : height - rows : STEP, columns : width - columns : STEP].flatten(1)
    at = torch.linspace(0.02, 0.98, KNOTS, device=batch.device)
    quantiles = F.pad(torch.quantile(middle, at, dim=1).T, (1, 0))  # (N, KNOTS + 1), from 0
    quantiles = F.pad(quantiles, (0, 1), value=1.0)
    curve = torch.lerp(_levels(batch), _through(quantiles[hit], quantiles[partner], _levels(batch)), strength)
    index = (batch[hit].flatten(1) * (LEVELS - 1)).round().long().clamp(0, LEVELS - 1)
    out = batch.clone()
    out[hit] = curve.gather(1, index).view(len(hit), *batch.shape[1:])
    return out


def _levels(batch: Tensor) -> Tensor:
    return torch.linspace(0.0, 1.0, LEVELS, device=batch.device)


def _through(x: Tensor, y: Tensor, at: Tensor) -> Tensor:
    """Piecewise linear through (x, y), both (M, K) and rising in rows, read at (LEVELS,). Returns (M, LEVELS)."""
    x = x + torch.linspace(0.0, 1e-4, x.shape[1], device=x.device)  # equal quantiles: no step of width 0
    right = torch.searchsorted(x.contiguous(), at.expand(len(x), -1).contiguous()).clamp(1, x.shape[1] - 1)
    x0, x1, y0, y1 = (part.gather(1, i) for part in (x, y) for i in (right - 1, right))
    return torch.lerp(y0, y1, ((at - x0) / (x1 - x0)).clamp(0.0, 1.0))


def background_of(batch: Tensor) -> Tensor:
    """(N, 1, H, W) in [0, 1] -> (N, 1, H, W) in [0, 1], soft: 1 where a picture is dark and the dark reaches its
    border. Dark lungs are not connected with the border and stay."""
    dark = (F.adaptive_avg_pool2d(batch, GRID) < DARK).float()
    reached = dark * F.pad(torch.zeros_like(dark)[:, :, 1:-1, 1:-1], (1, 1, 1, 1), value=1.0)
    for _ in range(GRID // 2):
        reached = dark * F.max_pool2d(reached, 3, stride=1, padding=1)
    near = F.max_pool2d(reached, 3, stride=1, padding=1)  # cells at the skin are half air: there each pixel decides
    near = F.interpolate(near, size=batch.shape[2:], mode="bilinear", align_corners=False)
    return near * ((1.5 * DARK - batch) / (0.5 * DARK)).clamp(0.0, 1.0)


def randomise_background(batch: Tensor, chosen: Tensor, generator: torch.Generator) -> Tensor:
    """Replace the background of the chosen pictures by a random grey that varies slowly and a grain of its own."""
    hit = torch.nonzero(chosen).flatten()
    if not len(hit):
        return batch

    def uniform(high: float, *shape: int) -> Tensor:
        return torch.empty(len(hit), *shape, device=batch.device).uniform_(0.0, high, generator=generator)

    pictures = batch[hit]
    slow = F.interpolate(uniform(0.3, 1, 4, 4), size=batch.shape[2:], mode="bilinear", align_corners=False)
    grain = uniform(0.1, 1, *batch.shape[2:]) * uniform(1.0, 1, 1, 1)
    fill = (uniform(0.7, 1, 1, 1) + slow + grain).clamp(0.0, 1.0)
    out = batch.clone()
    out[hit] = torch.lerp(pictures, fill, background_of(pictures))
    return out
