"""Age, sex and view as a small embedding beside the picture's features; 0 always means unknown.

A node gives its graphs the picture alone, so that an exported graph always sees "unknown", and so does every figure
that training reports; training hides a share of what is known (`hide`), or a model would lean on what it is not told.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

FIELDS = ("age", "sex", "view")  # the columns of a tensor of codes (N, 3)
SIZES = {"age": 12, "sex": 3, "view": 4}  # codes per field, unknown among them
SEXES = {"F": 1, "M": 2}
VIEWS = {"AP": 1, "PA": 2, "LL": 3}
WIDTH = 8


def codes(ages: Sequence[float | None], sexes: Sequence[str], views: Sequence[str]) -> Tensor:
    """Returns (N, 3) int64. Ages in years, by decade; an age, sex or view that is missing or strange is 0."""
    rows = [
        (0 if age is None or not 0 <= age < 120 else 1 + min(int(age) // 10, 10), SEXES.get(sex, 0), VIEWS.get(view, 0))
        for age, sex, view in zip(ages, sexes, views, strict=True)
    ]
    return torch.tensor(rows, dtype=torch.int64).reshape(-1, len(FIELDS))


def hide(known: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """known: (N, 3) codes. Returns them with about `share` of all entries made unknown."""
    return known * (torch.rand(known.shape, generator=generator) >= share)


class MetadataEmbedding(nn.Module):
    """One table per field that the recipe names; their rows stand side by side."""

    def __init__(self, fields: tuple[str, ...]) -> None:
        super().__init__()
        strange = [field for field in fields if field not in FIELDS]
        if strange:
            raise ValueError(f"metadata knows {', '.join(FIELDS)}, not {', '.join(strange)}")
        self.fields = fields
        self.tables = nn.ModuleDict({field: nn.Embedding(SIZES[field], WIDTH) for field in fields})
        self.width = WIDTH * len(fields)

    def forward(self, known: Tensor | None, n: int) -> Tensor:
        """known: (N, 3) codes, or None where nothing is known of n pictures. Returns (N, width)."""
        if known is None:
            row = torch.cat([self.tables[field].weight[0] for field in self.fields])  # type: ignore[index]
            return row.unsqueeze(0).expand(n, -1)
        return torch.cat([self.tables[field](known[:, FIELDS.index(field)]) for field in self.fields], dim=1)
