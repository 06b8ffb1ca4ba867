"""A small vision transformer whose tokens stay a map: (N, C, h, w) between blocks, so that they pool like any other."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

WIDTH = 192
HEADS = 3
DEPTH = 6
PATCH = 16


def positions(height: int, width: int, channels: int) -> Tensor:
    """Sines and cosines of row and column, (1, channels, height, width): no table, so that every size will do."""
    quarter = channels // 4
    rates = 1.0 / 10000.0 ** (torch.arange(quarter) / quarter)
    rows = torch.arange(height).unsqueeze(1) * rates  # (h, quarter)
    columns = torch.arange(width).unsqueeze(1) * rates
    down = torch.cat([rows.sin(), rows.cos()], dim=1).t().unsqueeze(2).expand(-1, -1, width)
    across = torch.cat([columns.sin(), columns.cos()], dim=1).t().unsqueeze(1).expand(-1, height, -1)
    return torch.cat([down, across]).unsqueeze(0)


class Patches(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.project = nn.Conv2d(1, WIDTH, PATCH, PATCH)

    def forward(self, image: Tensor) -> Tensor:
        """image: (N, 1, H, W). Returns (N, WIDTH, H/16, W/16)."""
        tokens = self.project(image)
        return tokens + positions(tokens.shape[2], tokens.shape[3], WIDTH).to(tokens)


class Block(nn.Module):
    """Attention and a two-layer perceptron, each after a norm and beside a shortcut."""

    def __init__(self, last: bool = False) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.widen, self.narrow = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)
        self.final = nn.LayerNorm(WIDTH) if last else nn.Identity()

    def forward(self, maps: Tensor) -> Tensor:
        """maps: (N, C, h, w). Returns the same shape."""
        tokens = maps.flatten(2).transpose(1, 2)  # (N, h*w, C)
        tokens = tokens + self._attend(self.norm1(tokens))
        tokens = tokens + self.narrow(F.gelu(self.widen(self.norm2(tokens))))
        return self.final(tokens).transpose(1, 2).unflatten(2, maps.shape[2:])

    def _attend(self, tokens: Tensor) -> Tensor:
        split = self.qkv(tokens).unflatten(2, (3, HEADS, WIDTH // HEADS)).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(split[0], split[1], split[2])
        return self.out(attended.transpose(1, 2).flatten(2))


def vit_small() -> nn.Sequential:
    return nn.Sequential(Patches(), *[Block() for _ in range(DEPTH - 1)], Block(last=True))
