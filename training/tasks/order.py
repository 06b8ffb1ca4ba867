"""What the command line was told; each command reads what it needs of it."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Order:
    recipe: Path
    data: Path
    run: Path = Path()
    out: Path = Path()
    threads: int = 0
    leave_out: str | None = None
    folds: tuple[Path, ...] = ()
    images: int = 4
    draws: int = 7
    variants: Path | None = None
    package: Path | None = None
    policies: tuple[str, ...] = ()
    fits: bool = True
    members: tuple[Path, ...] = ()  # runs beside `run`

    @property
    def runs(self) -> tuple[Path, ...]:
        return (self.run, *self.members)
