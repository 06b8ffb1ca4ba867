"""What a package is expected to reach. One place; `opentriage validate --floor NAME=VALUE` overrides each."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True)
class Floor:
    """A bound on one figure. at_most: the figure is an error and must not exceed it."""

    value: float
    words: str
    at_most: bool = False

    def holds(self, figure: float) -> bool:
        return figure <= self.value if self.at_most else figure >= self.value


FLOORS: Mapping[str, Floor] = MappingProxyType(
    {
        "sensitivity": Floor(0.80, "Sensitivity"),
        "specificity": Floor(0.80, "Specificity"),
        "auc": Floor(0.90, "AUC"),
        "sensitivity_at_90_specificity": Floor(0.80, "Sensitivity at 90 % specificity"),
        "calibration_error": Floor(0.10, "Expected calibration error", at_most=True),
        "dice": Floor(0.75, "Mean Dice over patients"),
        "looked_at": Floor(0.95, "Share of images looked at"),
        "read": Floor(0.99, "Share of images that could be read"),
        "group_sensitivity": Floor(0.70, "Sensitivity in every group"),
        "group_specificity": Floor(0.70, "Specificity in every group"),
        "images_with": Floor(100, "Images with the finding"),
        "images_without": Floor(100, "Images without the finding"),
    }
)
SMALL_GROUP = 20  # images with, or without, the finding: below it a group's figures are marked as uncertain


def overridden(options: Iterable[str]) -> dict[str, Floor]:
    """options: NAME=VALUE each. Raises ValueError with a sentence that names the option."""
    floors = dict(FLOORS)
    for option in options:
        name, _, text = option.partition("=")
        if name not in floors:
            raise ValueError(f"--floor {option}: there is no floor {name!r}; there are {', '.join(floors)}")
        floor = floors[name]
        try:
            value = float(text)
        except ValueError:
            raise ValueError(f"--floor {option}: write NAME=VALUE, such as {name}={floor.value:g}") from None
        if not (0.0 <= value <= 1.0 or (name.startswith("images_") and value >= 0.0)):
            raise ValueError(f"--floor {option}: {'0 or more' if name.startswith('images_') else 'from 0 to 1'}")
        floors[name] = Floor(value, floor.words, floor.at_most)
    return floors
