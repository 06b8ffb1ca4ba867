"""What tells the hospital from the disease, made random: the histogram and what lies outside the body."""

import torch
import torch.nn.functional as F
from torch import Tensor

LEVELS = 256
STEP = 4  # every 4th pixel each way is enough to know a histogram
GRID = 32  # the background is found on a picture of about 32 x 32
DARK = 0.12  # of the range: air beside the body, after the percentiles


def match_histograms(batch: Tensor, domains: Tensor, chosen: Tensor, generator: torch.Generator) -> Tensor:
    """Give chosen pictures the grey levels of a random picture of another domain in the batch, in part or in full.

    batch: (N, 1, H, W) in [0, 1]; domains, chosen: (N,). A picture without a partner stays as it is."""
    n = len(batch)
    other = (domains.unsqueeze(0) != domains.unsqueeze(1)).float()
    hit = torch.nonzero(chosen & (other.sum(dim=1) > 0)).flatten()
    if not len(hit):
        return batch
    partner = torch.multinomial(other[hit], 1, generator=generator).flatten()
    strength = torch.empty(n, 1, device=batch.device).uniform_(0.5, 1.0, generator=generator)[hit]
    ordered = batch[:, 0, ::STEP, ::STEP].flatten(1).sort(dim=1).values  # (N, m)
    levels = torch.linspace(0.0, 1.0, LEVELS, device=batch.device).expand(len(hit), LEVELS)
    rank = torch.searchsorted(ordered[hit].contiguous(), levels.contiguous())  # (hits, LEVELS), 0..m
    wanted = ordered[partner].gather(1, rank.clamp(max=ordered.shape[1] - 1))
    curve = torch.lerp(levels, wanted, strength)
    index = (batch[hit].flatten(1) * (LEVELS - 1)).round().long().clamp(0, LEVELS - 1)
    out = batch.clone()
    out[hit] = curve.gather(1, index).view(len(hit), *batch.shape[1:])
    return out


def background_of(batch: Tensor) -> Tensor:
    """(N, 1, H, W) in [0, 1] -> (N, 1, H, W) in [0, 1], soft: 1 where a picture is dark and the dark reaches its
    border. Dark lungs are not connected with the border and stay."""
    dark = (F.adaptive_avg_pool2d(batch, GRID) < DARK).float()
    frame = F.pad(torch.zeros_like(dark)[:, :, 1:-1, 1:-1], (1, 1, 1, 1), value=1.0)
    reached = dark * frame
    for _ in range(GRID // 2):
        reached = dark * F.max_pool2d(reached, 3, stride=1, padding=1)
    return F.interpolate(reached, size=batch.shape[2:], mode="bilinear", align_corners=False)


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
