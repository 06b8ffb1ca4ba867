"""One interface for every architecture: stem -> body -> last block -> global pool -> attention -> linear.

A graph whose last maps are pooled linearly has a class activation map for nothing and a head that can be masked
(docs/adr/0003). What differs between architectures is one `nn.Sequential` and where it is cut.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.networks.metadata import MetadataEmbedding

Place = Literal["head", "last_block"]


@dataclass(frozen=True)
class Trunk:
    """What an architecture is: a chain of layers, cut into stem, body and last block.

    `channels`: after the stem, at the input of the last block, and at the end.
    """

    build: Callable[[], nn.Sequential]
    stem_end: int
    block_start: int
    channels: tuple[int, int, int]
    rectified: bool = False  # a ReLU after the last layer (torchvision's DenseNet has it outside its features)


@dataclass(frozen=True)
class Head:
    """What is put on the trunk. `attention_ratio` None: every channel weighs the same."""

    n_labels: int
    dropout: float = 0.5
    place: Place = "head"
    attention_ratio: int | None = None
    metadata: tuple[str, ...] = ()  # of "age", "sex", "view"


class ChannelAttention(nn.Module):
    """Squeeze-and-excitation: one weight in (0, 1) per channel, from the pooled features alone."""

    def __init__(self, channels: int, ratio: int = 16) -> None:
        super().__init__()
        self.squeeze = nn.Linear(channels, channels // ratio)
        self.excite = nn.Linear(channels // ratio, channels)

    def forward(self, pooled: Tensor) -> Tensor:
        """pooled: (N, C). Returns (N, C) in (0, 1)."""
        return torch.sigmoid(self.excite(F.relu(self.squeeze(pooled))))


class Classifier(nn.Module):
    """A trunk with a head. The dropout stands before the classifier ("head") or before the last block."""

    def __init__(self, trunk: Trunk, head: Head) -> None:
        super().__init__()
        self.features = trunk.build()
        self.cuts = (trunk.stem_end, trunk.block_start)
        self.stem_channels, self.block_channels, self.feature_channels = trunk.channels
        self.rectified = trunk.rectified
        self.dropout, self.place = head.dropout, head.place
        ratio = head.attention_ratio
        self.attention = ChannelAttention(self.feature_channels, ratio) if ratio else None
        self.metadata = MetadataEmbedding(head.metadata) if head.metadata else None
        known = self.metadata.width if self.metadata else 0
        self.classifier = nn.Linear(self.feature_channels + known, head.n_labels)

    @property
    def masked_channels(self) -> int:
        """How many channels a dropout mask has."""
        return self.feature_channels if self.place == "head" else self.block_channels

    def stem(self, image: Tensor) -> Tensor:
        """image: (N, 1, H, W) float. Returns the first maps (N, stem_channels, h, w)."""
        return self.features[: self.cuts[0]](image)

    def body(self, stem: Tensor) -> Tensor:
        """Returns the input of the last block, (N, block_channels, h, w)."""
        return self.features[self.cuts[0] : self.cuts[1]](stem)

    def last_block(self, hidden: Tensor) -> Tensor:
        """Returns the last maps (N, feature_channels, h, w); their mean over h and w is what the head sees."""
        maps = self.features[self.cuts[1] :](hidden)
        return F.relu(maps) if self.rectified else maps

    def stem_and_maps(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """image: (N, 1, H, W). Returns the first maps and the last, without dropout."""
        stem = self.stem(image)
        return stem, self.last_block(self.body(stem))

    def feature_maps(self, image: Tensor) -> Tensor:
        return self.stem_and_maps(image)[1]

    def weigh(self, pooled: Tensor) -> Tensor:
        """pooled: (N, C). Returns the weight of each channel (N, C)."""
        return torch.ones_like(pooled) if self.attention is None else self.attention(pooled)

    def label_weights(self) -> Tensor:
        """(L, C): what each label makes of each channel of the maps."""
        return self.classifier.weight[:, : self.feature_channels]

    def logits(self, attended: Tensor, metadata: Tensor | None = None) -> Tensor:
        """attended: (N, C) or (N, T, C). metadata: (N, 3) codes, see training/networks/metadata.py; None: unknown."""
        out = F.linear(attended, self.label_weights(), self.classifier.bias)
        if self.metadata is None:
            return out
        embedded = self.metadata(metadata, attended.shape[0])  # not len(): an export would fix the batch
        known = F.linear(embedded, self.classifier.weight[:, self.feature_channels :])
        return out + (known.unsqueeze(1) if attended.dim() == 3 else known)

    def forward(self, image: Tensor, metadata: Tensor | None = None) -> Tensor:
        """image: (N, 1, H, W). Returns logits (N, L); the dropout is active in train mode only."""
        hidden = self.body(self.stem(image))
        if self.place == "last_block":
            hidden = F.dropout2d(hidden, self.dropout, self.training)
        pooled = self.last_block(hidden).mean(dim=(2, 3))
        attended = pooled * self.weigh(pooled)
        if self.place == "head":
            attended = F.dropout(attended, self.dropout, self.training)
        return self.logits(attended, metadata)
