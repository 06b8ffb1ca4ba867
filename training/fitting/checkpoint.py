"""What every fit keeps between epochs: averaged weights, and files that a cut-off leaves whole."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn


@torch.no_grad()
def average(ema: nn.Module, net: nn.Module, decay: float) -> None:
    """Move the averaged weights a step towards the network's; counters are copied."""
    for mean, now in zip(ema.state_dict().values(), net.state_dict().values(), strict=True):
        if mean.is_floating_point():
            mean.lerp_(now, 1 - decay)
        else:
            mean.copy_(now)


def write(state: Any, path: Path) -> None:
    """Atomically: a run that is cut off leaves the last whole file."""
    part = path.with_suffix(".part")
    torch.save(state, part)
    part.replace(path)


def keep(path: Path, epoch: int, state: Mapping[str, Any]) -> None:
    """Write a checkpoint of each part of `state` after this epoch."""
    write({"epoch": epoch} | {name: part.state_dict() for name, part in state.items()}, path)


def resume(path: Path, state: Mapping[str, Any]) -> int:
    """Load each part of `state` from a checkpoint, if there is one. Returns the epoch to go on with."""
    if not path.exists():
        return 0
    saved = torch.load(path, weights_only=True)
    for name, part in state.items():
        part.load_state_dict(saved[name])
    return int(saved["epoch"]) + 1
