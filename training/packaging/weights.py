"""The weights that a run left behind."""

from pathlib import Path
from typing import TypeVar

import torch
from torch import nn

Net = TypeVar("Net", bound=nn.Module)


def with_weights(net: Net, run: Path) -> Net:
    """The network with what the run kept; of an unfinished run, the averaged weights of its last epoch."""
    finished = run / "weights.pt"
    if finished.exists():
        net.load_state_dict(torch.load(finished, weights_only=True))
    else:
        net.load_state_dict(torch.load(run / "checkpoint.pt", weights_only=True)["ema"])
    return net
