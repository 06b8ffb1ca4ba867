"""A residual U-Net that marks a finding in a slice, and whose encoder says whether the slice shows it at all.

The picture is folded first: each 2 x 2 pixels become four channels, and the last convolution unfolds them again, so
that the costly layers work on half the side while masks keep every pixel. Four contracting blocks, a residual
bottleneck, four expanding blocks that concatenate what the contracting path saw. The slice-level classifier reads the
pooled encoder and has Monte-Carlo dropout before it (docs/adr/0003). Nothing here knows about files or training.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.networks.monte_carlo import STEM_GRID, McConfig, mask_bank

FOLD = 2  # pixels per side that become channels
CONTRACTIONS = 4
DEFAULT = McConfig()
MULTIPLE = FOLD * 2**CONTRACTIONS  # height and width must be multiples of it


class Encoded(NamedTuple):
    """skips: of the contracting blocks, finest first, (N, c, H/2^(i+1), W/2^(i+1)). deep: (N, C, H/32, W/32). >= 0."""

    skips: list[Tensor]
    deep: Tensor


class ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions and a shortcut; `stride` 2 halves the side first."""

    def __init__(self, channels_in: int, channels_out: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels_out)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels_out)
        same = stride == 1 and channels_in == channels_out
        self.shortcut = nn.Identity() if same else _projection(channels_in, channels_out, stride)

    def forward(self, x: Tensor) -> Tensor:
        inner = F.relu(self.norm1(self.conv1(x)))
        return F.relu(self.norm2(self.conv2(inner)) + self.shortcut(x))


def _projection(channels_in: int, channels_out: int, stride: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(channels_in, channels_out, 1, stride, bias=False), nn.BatchNorm2d(channels_out))


class ExpandingBlock(nn.Module):
    """Twice the side, the contracting path's maps beside it, then one residual block."""

    def __init__(self, channels_in: int, channels_skip: int, channels_out: int) -> None:
        super().__init__()
        self.narrow = nn.Conv2d(channels_in, channels_out, 1, bias=False)
        self.block = ResidualBlock(channels_out + channels_skip, channels_out)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        up = F.interpolate(self.narrow(x), scale_factor=2.0, mode="nearest")
        return self.block(torch.cat([up, skip], dim=1))


class ResUNet(nn.Module):
    """One-channel pictures in, mask and slice logits out. widths: channels of the four blocks and the bottleneck."""

    def __init__(self, n_labels: int, widths: tuple[int, ...] = (32, 48, 96, 160, 224), dropout: float = 0.5) -> None:
        super().__init__()
        if len(widths) != CONTRACTIONS + 1:
            raise ValueError(f"widths are those of {CONTRACTIONS} contracting blocks and the bottleneck")
        self.widths, self.dropout, self.n_labels = widths, dropout, n_labels
        ins = (FOLD**2, *widths[:-2])
        self.contract = nn.ModuleList(
            ResidualBlock(a, b, 1 if i == 0 else 2) for i, (a, b) in enumerate(zip(ins, widths[:-1], strict=True))
        )
        self.bottleneck = nn.Sequential(ResidualBlock(widths[-2], widths[-1], 2), ResidualBlock(widths[-1], widths[-1]))
        pairs = zip(widths[:0:-1], widths[-2::-1], strict=True)
        self.expand = nn.ModuleList(ExpandingBlock(deep, skip, skip) for deep, skip in pairs)
        self.mark = nn.Conv2d(widths[0], n_labels * FOLD**2, 1)
        self.classifier = nn.Linear(self.pooled_channels, n_labels)

    @property
    def pooled_channels(self) -> int:
        return 2 * (self.widths[-2] + self.widths[-1])

    def encode(self, image: Tensor) -> Encoded:
        """image: (N, 1, H, W) float, both sides multiples of 32."""
        x = F.pixel_unshuffle(image, FOLD)
        skips = []
        for block in self.contract:
            x = block(x)
            skips.append(x)
        return Encoded(skips, self.bottleneck(x))

    def pool(self, encoded: Encoded) -> Tensor:
        """(N, C): mean and maximum over the two deepest scales; a small mark survives the maximum, not the mean."""
        maps = (encoded.skips[-1], encoded.deep)
        return torch.cat([pooled for m in maps for pooled in (m.mean(dim=(2, 3)), m.amax(dim=(2, 3)))], dim=1)

    def decode(self, encoded: Encoded) -> Tensor:
        """Mask logits (N, L, H, W)."""
        x = encoded.deep
        for block, skip in zip(self.expand, reversed(encoded.skips), strict=True):
            x = block(x, skip)
        return F.pixel_shuffle(self.mark(x), FOLD)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """image: (N, 1, H, W). Returns mask logits (N, L, H, W) and slice logits (N, L); dropout in train mode only."""
        encoded = self.encode(image)
        pooled = F.dropout(self.pool(encoded), self.dropout, self.training)
        return self.decode(encoded), self.classifier(pooled)


class McSegNet(nn.Module):
    """The graph that is exported: one pass over encoder and decoder, T masked heads, masks, features for the gate.

    Outputs, by name in the ONNX graph:
      scores   (N, T, L) in (0, 1): sigmoid of each masked head, before calibration: is it in this slice?
      masks    (N, L, H, W) in (0, 1): where
      features (N, 16 * widths[0] + pooled): the first block pooled to 4 x 4, and what the head sees; each standardised
               over the training split, the two parts with equal weight
    """

    net: ResUNet
    bank: Tensor  # (T, pooled channels)
    feature_mean: Tensor
    feature_scale: Tensor

    def __init__(self, net: ResUNet, mc: McConfig = DEFAULT) -> None:
        super().__init__()
        self.net = net.eval()
        gate_features = net.widths[0] * STEM_GRID**2 + net.pooled_channels
        self.register_buffer("bank", mask_bank(mc, net.dropout, net.pooled_channels))
        self.register_buffer("feature_mean", torch.zeros(gate_features))
        self.register_buffer("feature_scale", torch.ones(gate_features))

    def standardise(self, raw: Tensor) -> None:
        """raw: (N, C) features of the training split; sets what the graph subtracts and divides by."""
        spread, last = raw.std(dim=0), self.net.pooled_channels
        parts = (spread[:-last], spread[-last:])
        self.feature_mean.copy_(raw.mean(dim=0))
        self.feature_scale.copy_(torch.cat([(part + 0.05 * part.mean()) * len(part) ** 0.5 for part in parts]))

    def raw_features(self, encoded: Encoded) -> Tensor:
        """(N, C), before standardising."""
        first = encoded.skips[0]
        grid = F.avg_pool2d(first, (first.shape[2] // STEM_GRID, first.shape[3] // STEM_GRID))
        return torch.cat([grid.flatten(1), self.net.pool(encoded)], dim=1)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """image: (N, 1, H, W) float32 in the manifest's value range."""
        encoded = self.net.encode(image)
        raw = self.raw_features(encoded)
        pooled = raw[:, -self.net.pooled_channels :]
        scores = torch.sigmoid(self.net.classifier(pooled.unsqueeze(1) * self.bank.unsqueeze(0)))
        features = (raw - self.feature_mean) / self.feature_scale
        return scores, torch.sigmoid(self.net.decode(encoded)), features
