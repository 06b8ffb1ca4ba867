"""How long after an image its study is taken as complete, and on what grounds (docs/adr/0018)."""

from dataclasses import dataclass
from typing import Final

LIMIT_S: Final = 900.0


@dataclass(frozen=True)
class Completion:
    """What is known, when an image comes, of how long its study may still grow. Durations in seconds.

    after_s: the study is complete when no image came for so long. limit_s: counted from the first image since the
    study was last open, it is reported then whatever still comes. because: the evidence behind `after_s`, a sentence.
    """

    after_s: float
    limit_s: float = LIMIT_S
    because: str = ""

    @property
    def limit_because(self) -> str:
        """The evidence where the limit is what decides."""
        return f"It was still growing {self.limit_s:.0f} s after its first image: reported as it is."
