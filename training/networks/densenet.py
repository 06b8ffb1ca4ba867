"""DenseNet-121 with channel attention and a Monte-Carlo dropout head.

The dropout sits before the linear classifier, so the features are computed once and the T stochastic passes are T
masked heads over the same pooled features (docs/adr/0003). Nothing here knows about files or training.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models import densenet121

FEATURE_CHANNELS = 1024  # torchvision's densenet121: channels after the last dense block
STEM_CHANNELS = 64  # and after its first convolution
STEM_GRID = 4  # the stem is pooled to a grid of 4 x 4, so that the gate knows where bright and dark edges lie
GATE_FEATURES = STEM_CHANNELS * STEM_GRID**2 + FEATURE_CHANNELS


class ChannelAttention(nn.Module):
    """Squeeze-and-excitation: one weight in (0, 1) per channel, from the pooled features alone."""

    def __init__(self, channels: int, ratio: int = 16) -> None:
        super().__init__()
        self.squeeze = nn.Linear(channels, channels // ratio)
        self.excite = nn.Linear(channels // ratio, channels)

    def forward(self, pooled: Tensor) -> Tensor:
        """pooled: (N, C). Returns (N, C) in (0, 1)."""
        return torch.sigmoid(self.excite(F.relu(self.squeeze(pooled))))


class AttentionDenseNet(nn.Module):
    """One-channel DenseNet-121 -> channel attention -> global pool -> dropout -> linear."""

    def __init__(self, n_labels: int, dropout: float = 0.5, ratio: int = 16) -> None:
        super().__init__()
        self.features = densenet121(weights=None).features
        self.features.conv0 = nn.Conv2d(1, 64, kernel_size=7, stride=2, padding=3, bias=False)
        nn.init.kaiming_normal_(self.features.conv0.weight)
        self.attention = ChannelAttention(FEATURE_CHANNELS, ratio)
        self.dropout = dropout
        self.classifier = nn.Linear(FEATURE_CHANNELS, n_labels)

    def feature_maps(self, image: Tensor) -> Tensor:
        """image: (N, 1, H, W) float. Returns (N, 1024, H/32, W/32), >= 0."""
        return self.stem_and_maps(image)[1]

    def stem_and_maps(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """image: (N, 1, H, W). Returns the stem (N, 64, H/4, W/4) and the last maps (N, 1024, H/32, W/32), all >= 0."""
        stem = self.features[:4](image)  # conv0, norm0, relu0, pool0
        return stem, F.relu(self.features[4:](stem))

    def forward(self, image: Tensor) -> Tensor:
        """image: (N, 1, H, W). Returns logits (N, L); the dropout is active in train mode only."""
        pooled = self.feature_maps(image).mean(dim=(2, 3))
        attended = pooled * self.attention(pooled)
        return self.classifier(F.dropout(attended, self.dropout, self.training))


@dataclass(frozen=True)
class McConfig:
    """How the mask bank is drawn. The same seed and passes always give the same masks."""

    passes: int = 50
    seed: int = 20261120


def mask_bank(mc: McConfig, dropout: float) -> Tensor:
    """Inverted-dropout masks (T, 1024): 0 with probability `dropout`, else 1 / (1 - dropout)."""
    generator = torch.Generator().manual_seed(mc.seed)
    keep = torch.rand(mc.passes, FEATURE_CHANNELS, generator=generator) >= dropout
    return keep.float() / (1.0 - dropout)


class McTriageNet(nn.Module):
    """The graph that is exported: one pass over the features, T masked heads, a map per label, features for the gate.

    Outputs, by name in the ONNX graph:
      scores   (N, T, L) in (0, 1): sigmoid of each masked head, before calibration
      cam      (N, L, h, w): class activation map, attention held constant; its mean plus the bias is the logit
      features (N, 2048): the stem pooled to 4 x 4 (64 channels) and the last block pooled to one figure per channel,
               before attention; each standardised over the training split, the two halves with equal weight

    The last block alone knows textures but not where they lie: upside down, a chest keeps most of its pooled features.
    """

    net: AttentionDenseNet
    masks: Tensor
    feature_mean: Tensor
    feature_scale: Tensor

    def __init__(self, net: AttentionDenseNet, mc: McConfig = McConfig()) -> None:
        super().__init__()
        self.net = net.eval()
        self.register_buffer("masks", mask_bank(mc, net.dropout))
        self.register_buffer("feature_mean", torch.zeros(GATE_FEATURES))
        self.register_buffer("feature_scale", torch.ones(GATE_FEATURES))

    def standardise(self, raw: Tensor) -> None:
        """raw: (N, 2048) features of the training split; sets what the graph subtracts and divides by."""
        spread = raw.std(dim=0)
        halves = (spread[:-FEATURE_CHANNELS], spread[-FEATURE_CHANNELS:])
        self.feature_mean.copy_(raw.mean(dim=0))
        self.feature_scale.copy_(torch.cat([(half + 0.05 * half.mean()) * len(half) ** 0.5 for half in halves]))

    def raw_features(self, stem: Tensor, pooled: Tensor) -> Tensor:
        """stem: (N, 64, h, w); pooled: (N, 1024). Returns (N, 2048)."""
        cell = (stem.shape[2] // STEM_GRID, stem.shape[3] // STEM_GRID)
        return torch.cat([F.avg_pool2d(stem, cell).flatten(1), pooled], dim=1)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """image: (N, 1, H, W) float32 in the manifest's value range."""
        stem, maps = self.net.stem_and_maps(image)
        pooled = maps.mean(dim=(2, 3))
        weight = self.net.attention(pooled)
        passes = (pooled * weight).unsqueeze(1) * self.masks.unsqueeze(0)  # (N, T, C)
        scores = torch.sigmoid(self.net.classifier(passes))
        label_weights = weight.unsqueeze(1) * self.net.classifier.weight.unsqueeze(0)  # (N, L, C)
        cam = torch.bmm(label_weights, maps.flatten(2)).unflatten(2, maps.shape[2:])
        features = (self.raw_features(stem, pooled) - self.feature_mean) / self.feature_scale
        return scores, cam, features
