"""The graph that is exported: T stochastic passes out of a seeded bank of masks that is part of the model.

With the dropout in the head, the features are computed once and the passes are T masked heads. With the dropout before
the last block, everything up to there is computed once and the last block runs on a batch tiled T times: dearer, but it
hears some of the backbone's own doubt. The plain pass rides in the same batch under a mask of ones.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.networks.classifier import Classifier

STEM_GRID = 4  # the stem is pooled to a grid of 4 x 4, so that the gate knows where bright and dark edges lie
METHODS = {"head": "mc-dropout-head", "last_block": "mc-dropout-last-block"}  # as a manifest names them
WORDS = {
    "head": "sd over {passes} masked heads on one pass of the features, after calibrating each; blind to the backbone's"
    " own uncertainty",
    "last_block": "sd over {passes} masked passes through the last block on one pass of what lies before it, after"
    " calibrating each; blind to the uncertainty of what lies before",
}


@dataclass(frozen=True)
class McConfig:
    """How the mask bank is drawn. The same seed and passes always give the same masks."""

    passes: int = 50
    seed: int = 20261120


def mask_bank(mc: McConfig, dropout: float, channels: int = 1024) -> Tensor:
    """Inverted-dropout masks (T, channels): 0 with probability `dropout`, else 1 / (1 - dropout)."""
    generator = torch.Generator().manual_seed(mc.seed)
    keep = torch.rand(mc.passes, channels, generator=generator) >= dropout
    return keep.float() / (1.0 - dropout)


class McTriageNet(nn.Module):
    """One pass over the features, T masked heads or last blocks, a map per label, features for the gate.

    Outputs, by name in the ONNX graph:
      scores   (N, T, L) in (0, 1): sigmoid of each masked pass, before calibration
      cam      (N, L, h, w): class activation map, attention held constant; its mean plus the bias is the logit
               of the plain pass (and, with metadata, plus what an unknown patient adds)
      features (N, 16 * stem + last): the stem pooled to 4 x 4 and the last block pooled to one figure per channel,
               before attention; each standardised over the training split, the two halves with equal weight

    The last block alone knows textures but not where they lie: upside down, a chest keeps most of its pooled features.
    """

    net: Classifier
    masks: Tensor
    feature_mean: Tensor
    feature_scale: Tensor

    def __init__(self, net: Classifier, mc: McConfig = McConfig()) -> None:
        super().__init__()
        self.net = net.eval()
        self.gate_features = net.stem_channels * STEM_GRID**2 + net.feature_channels
        self.register_buffer("masks", mask_bank(mc, net.dropout, net.masked_channels))
        self.register_buffer("feature_mean", torch.zeros(self.gate_features))
        self.register_buffer("feature_scale", torch.ones(self.gate_features))

    @property
    def method(self) -> str:
        """What a manifest calls it."""
        return METHODS[self.net.place]

    def standardise(self, raw: Tensor) -> None:
        """raw: (N, C) features of the training split; sets what the graph subtracts and divides by."""
        spread, last = raw.std(dim=0), self.net.feature_channels
        halves = (spread[:-last], spread[-last:])
        self.feature_mean.copy_(raw.mean(dim=0))
        self.feature_scale.copy_(torch.cat([(half + 0.05 * half.mean()) * len(half) ** 0.5 for half in halves]))

    def raw_features(self, stem: Tensor, pooled: Tensor) -> Tensor:
        """stem: (N, stem_channels, h, w) with h, w >= 4; pooled: (N, feature_channels). Returns (N, gate_features)."""
        cell = (stem.shape[2] // STEM_GRID, stem.shape[3] // STEM_GRID)
        grid = F.avg_pool2d(stem, cell)[:, :, :STEM_GRID, :STEM_GRID]
        return torch.cat([grid.flatten(1), pooled], dim=1)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """image: (N, 1, H, W) float32 in the manifest's value range."""
        stem = self.net.stem(image)
        hidden = self.net.body(stem)
        maps, passes = self._in_head(hidden) if self.net.place == "head" else self._in_last_block(hidden)
        pooled = maps.mean(dim=(2, 3))
        label_weights = self.net.weigh(pooled).unsqueeze(1) * self.net.label_weights().unsqueeze(0)  # (N, L, C)
        cam = torch.bmm(label_weights, maps.flatten(2)).unflatten(2, maps.shape[2:])
        features = (self.raw_features(stem, pooled) - self.feature_mean) / self.feature_scale
        return torch.sigmoid(self.net.logits(passes)), cam, features

    def _in_head(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the last maps (N, C, h, w) and the masked, attended features (N, T, C)."""
        maps = self.net.last_block(hidden)
        pooled = maps.mean(dim=(2, 3))
        return maps, (pooled * self.net.weigh(pooled)).unsqueeze(1) * self.masks.unsqueeze(0)

    def _in_last_block(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """The same; the maps are those of the plain pass."""
        bank = torch.cat([torch.ones_like(self.masks[:1]), self.masks])  # (1 + T, block channels)
        tiled = (hidden.unsqueeze(1) * bank.unsqueeze(-1).unsqueeze(-1)).flatten(0, 1)
        maps = self.net.last_block(tiled)
        pooled = maps.mean(dim=(2, 3))
        attended = (pooled * self.net.weigh(pooled)).unflatten(0, (-1, len(bank)))
        return maps.unflatten(0, (-1, len(bank)))[:, 0], attended[:, 1:]
