"""A small one-stage detector without anchors: a heat map of centres and, at each cell, the way to the four edges.

A residual trunk, a feature pyramid down to a stride of 8 pixels, two heads (CenterNet's heat map, TTFNet's edges).
Everything the node needs comes out of one graph: peaks by max-pooling, the best of them by TopK, overlapping boxes
silenced by a matrix of overlaps. No operator there has an output of varying size, and equal input gives equal boxes.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

STRIDE = 8  # pixels of the input per cell of the heat map
MAP_POOL = 4  # cells per side that one cell of the exported map stands for
STEM_GRID = 4  # the stem is pooled to 4 x 4 for the gate
CANDIDATES = 24  # peaks that are looked at
OVERLAP = 0.25  # IoU with a better box from which a box is silenced
SILENCED = 1e-6  # its score then
RARE = -2.2  # logit of the share of cells that hold a centre, to start from
SMALLEST = 1e-6


@dataclass(frozen=True)
class Widths:
    """Channels at strides 2, 4, 8, 16, 32; residual blocks at 4, 8, 16, 32; channels of pyramid and heads."""

    stages: tuple[int, int, int, int, int] = (16, 32, 64, 128, 192)
    blocks: tuple[int, int, int, int] = (1, 2, 2, 1)
    head: int = 64


class Block(nn.Module):
    """Two 3 x 3 convolutions beside a shortcut."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first, self.second = convolution(channels, channels), convolution(channels, channels, active=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.second(self.first(x)))


def convolution(into: int, out: int, kernel: int = 3, stride: int = 1, active: bool = True) -> nn.Sequential:
    layers: list[nn.Module] = [
        nn.Conv2d(into, out, kernel, stride, kernel // 2, bias=False),
        nn.BatchNorm2d(out),
    ]
    return nn.Sequential(*layers, nn.ReLU(inplace=True)) if active else nn.Sequential(*layers)


class FractureDetector(nn.Module):
    """image (N, 1, S, S), S a multiple of 32 -> head features, heat map and edges at stride 8."""

    def __init__(self, n_labels: int = 1, widths: Widths = Widths(), dropout: float = 0.2) -> None:
        super().__init__()
        a, *rest = widths.stages
        self.dropout, self.widths = dropout, widths
        self.stem = convolution(1, a, 5, 2)
        before = [a, *rest[:-1]]
        self.stages = nn.ModuleList(
            nn.Sequential(convolution(i, o, 3, 2), *(Block(o) for _ in range(n)))
            for i, o, n in zip(before, rest, widths.blocks, strict=True)
        )
        self.sides = nn.ModuleList(nn.Conv2d(channels, widths.head, 1) for channels in rest[1:])
        self.smooth = convolution(widths.head, widths.head)
        self.heat_tower, self.edge_tower = (convolution(widths.head, widths.head) for _ in range(2))
        self.heat, self.edges = nn.Conv2d(widths.head, n_labels, 1), nn.Conv2d(widths.head, 4, 1)
        nn.init.normal_(self.heat.weight, std=0.01)
        nn.init.normal_(self.edges.weight, std=0.01)
        nn.init.constant_(self.bias(self.heat), RARE)
        nn.init.constant_(self.bias(self.edges), 0.5)

    @staticmethod
    def bias(layer: nn.Conv2d) -> Tensor:
        if layer.bias is None:
            raise ValueError("a head has no bias")
        return layer.bias

    def towers(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Returns stem (N, 16, S/2, S/2), deepest maps (N, 192, S/32, S/32), and both towers (N, 64, S/8, S/8)."""
        stem = self.stem(image)
        x, maps = stem, []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        down = self.sides[-1](maps[-1])
        for side, finer in zip(reversed(self.sides[:-1]), reversed(maps[1:-1]), strict=True):
            down = F.interpolate(down, scale_factor=2.0, mode="nearest") + side(finer)
        shared = self.smooth(down)
        return stem, maps[-1], self.heat_tower(shared), self.edge_tower(shared)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of the heat map (N, L, h, w) and edges (N, 4, h, w): cells up, left, down, right, > 0."""
        _, _, heat, edge = self.towers(image)
        return self.heat(F.dropout2d(heat, self.dropout, self.training)), self.way(edge)

    def way(self, edge: Tensor) -> Tensor:
        return torch.exp(self.edges(edge).clamp(-4.0, 4.0))


def cell_boxes(edges: Tensor) -> Tensor:
    """edges: (N, 4, h, w) in cells. Returns (N, 4, h, w): top, left, bottom, right in [0, 1] of the input."""
    height, width = edges.shape[2:]
    y = (torch.arange(height, dtype=torch.float32) + 0.5).view(1, height, 1)
    x = (torch.arange(width, dtype=torch.float32) + 0.5).view(1, 1, width)
    up, left, down, right = edges.unbind(dim=1)
    corners = [(y - up) / height, (x - left) / width, (y + down) / height, (x + right) / width]
    return torch.stack(corners, dim=1).clamp(0.0, 1.0)


def overlaps(boxes: Tensor) -> Tensor:
    """boxes: (N, B, 4). Returns IoU of each with each, (N, B, B)."""
    one, other = boxes.unsqueeze(2), boxes.unsqueeze(1)
    low, high = torch.maximum(one[..., :2], other[..., :2]), torch.minimum(one[..., 2:], other[..., 2:])
    common = (high - low).clamp(min=0.0).prod(dim=-1)
    area = (boxes[..., 2:] - boxes[..., :2]).prod(dim=-1)
    return common / (area.unsqueeze(2) + area.unsqueeze(1) - common + SMALLEST)


class McDetector(nn.Module):
    """The graph that is exported, for one label.

      scores    (N, T, 1) in (0, 1): the best box's score by T masked heads over its own features
      cam       (N, 1, h/4, w/4): the heat map without its bias, in logits, the greatest of 4 x 4 cells
      boxes     (N, B, 4): top, left, bottom, right in [0, 1] of the input, best first
      box_scores (N, B, 1) in (0, 1), no dropout; a box that a better one overlaps has SILENCED
      features  (N, C): the stem pooled to 4 x 4, the deepest maps pooled to one figure per channel; standardised

    Dropout sits before the heat map's last layer, as in a classifier's head (docs/adr/0003).
    """

    masks: Tensor
    feature_mean: Tensor
    feature_scale: Tensor

    def __init__(self, net: FractureDetector, passes: int = 50, seed: int = 20261120, boxes: int = 10) -> None:
        super().__init__()
        self.net, self.boxes = net.eval(), boxes
        generator = torch.Generator().manual_seed(seed)
        keep = torch.rand(passes, net.widths.head, generator=generator) >= net.dropout
        self.register_buffer("masks", keep.float() / (1.0 - net.dropout))
        self.halves = (net.widths.stages[0] * STEM_GRID**2, net.widths.stages[-1])
        self.register_buffer("feature_mean", torch.zeros(sum(self.halves)))
        self.register_buffer("feature_scale", torch.ones(sum(self.halves)))

    def standardise(self, raw: Tensor) -> None:
        """raw: (N, C) features of the training split; sets what the graph subtracts and divides by."""
        spread = raw.std(dim=0).split(list(self.halves))
        self.feature_mean.copy_(raw.mean(dim=0))
        self.feature_scale.copy_(torch.cat([(half + 0.05 * half.mean()) * len(half) ** 0.5 for half in spread]))

    def raw_features(self, stem: Tensor, deep: Tensor) -> Tensor:
        cell = (stem.shape[2] // STEM_GRID, stem.shape[3] // STEM_GRID)
        return torch.cat([F.avg_pool2d(stem, cell).flatten(1), deep.mean(dim=(2, 3))], dim=1)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """image: (N, 1, S, S) float32 in the manifest's value range."""
        stem, deep, heat_maps, edge_maps = self.net.towers(image)
        logits = self.net.heat(heat_maps)
        boxes, box_scores, first = self._best(logits, cell_boxes(self.net.way(edge_maps)))
        peak = heat_maps.flatten(2).gather(2, first.view(-1, 1, 1).expand(-1, heat_maps.shape[1], 1)).squeeze(2)
        passes = peak.unsqueeze(1) * self.masks.unsqueeze(0)  # (N, T, C)
        bias = self.net.bias(self.net.heat)
        scores = torch.sigmoid(F.linear(passes, self.net.heat.weight.flatten(1), bias))
        cam = F.max_pool2d(logits - bias.view(1, -1, 1, 1), MAP_POOL)
        features = (self.raw_features(stem, deep) - self.feature_mean) / self.feature_scale
        return scores, cam, boxes, box_scores, features

    def _best(self, logits: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Boxes (N, B, 4), their scores (N, B, 1), and the cell of the best one (N,)."""
        score = torch.sigmoid(logits)
        peaks = torch.where(F.max_pool2d(score, 3, 1, 1) == score, score, torch.zeros_like(score)).flatten(1)
        best, cells = peaks.topk(CANDIDATES, dim=1)  # (N, K)
        chosen = boxes.flatten(2).gather(2, cells.unsqueeze(1).expand(-1, 4, -1)).transpose(1, 2)
        better = torch.tril(overlaps(chosen), diagonal=-1).amax(dim=2)  # IoU with any box before it
        left = torch.where(better > OVERLAP, torch.zeros_like(best), best).clamp(SILENCED, 1.0 - SILENCED)
        final, order = left.topk(self.boxes, dim=1)
        return chosen.gather(1, order.unsqueeze(2).expand(-1, -1, 4)), final.unsqueeze(2), cells[:, 0]
