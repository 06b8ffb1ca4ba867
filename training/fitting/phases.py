"""A fit, epoch by epoch: which size, which parameters, which rate."""

import math
from dataclasses import dataclass

import torch
from torch import nn

from training.recipe import FitPlan

HEAD = ("classifier", "attention", "metadata")  # modules that are fitted first; the rest is the trunk
WARM_UP = 0.05  # of the steps, before a cosine
SMALLEST_RATE = 1e-3  # of the greatest: where a cosine and a plateau end


@dataclass(frozen=True)
class Epoch:
    size: int  # pixels
    phase: int  # epochs of one phase share an optimiser and a schedule
    head_only: bool
    max_lr: float
    last_stage: bool


def epochs_of(plan: FitPlan) -> list[Epoch]:
    """Head first at the first stage's size, where asked for; then every stage."""
    out = []
    if plan.head_first:
        first = Epoch(plan.stages[0].size, 0, True, plan.head_first.max_lr, False)
        out += [first] * plan.head_first.epochs
    phase = len({epoch.phase for epoch in out})
    for number, stage in enumerate(plan.stages):
        last = number == len(plan.stages) - 1
        out += [Epoch(stage.size, phase, False, plan.max_lr, last)] * stage.epochs
    return out


@dataclass
class Rate:
    """The optimiser of one phase and its schedule, stepped with every batch or, on a plateau, with every epoch."""

    optimiser: torch.optim.Optimizer
    by_batch: torch.optim.lr_scheduler.LRScheduler | None
    by_epoch: torch.optim.lr_scheduler.ReduceLROnPlateau | None

    def after_batch(self) -> None:
        if self.by_batch is not None:
            self.by_batch.step()

    def after_epoch(self, auc: float) -> None:
        if self.by_epoch is not None:
            self.by_epoch.step(auc)

    def state_dict(self) -> dict[str, object]:
        schedule = self.by_batch or self.by_epoch
        return {"optimiser": self.optimiser.state_dict(), "schedule": schedule.state_dict() if schedule else {}}

    def load_state_dict(self, state: dict[str, dict[str, object]]) -> None:
        self.optimiser.load_state_dict(state["optimiser"])
        schedule = self.by_batch or self.by_epoch
        if schedule is not None:
            schedule.load_state_dict(state["schedule"])


def begin(net: nn.Module, plan: FitPlan, epoch: Epoch, steps: int) -> Rate:
    """Freeze what the phase does not fit and start its optimiser. steps: batches of the whole phase."""
    for name, parameter in net.named_parameters():
        parameter.requires_grad_(not epoch.head_only or name.split(".")[0] in HEAD)
    fitted = [parameter for parameter in net.parameters() if parameter.requires_grad]
    optimiser = torch.optim.AdamW(fitted, lr=epoch.max_lr, weight_decay=plan.weight_decay)
    if plan.schedule == "plateau":
        floor = epoch.max_lr * SMALLEST_RATE
        watch = torch.optim.lr_scheduler.ReduceLROnPlateau(optimiser, "max", factor=0.3, patience=1, min_lr=floor)
        return Rate(optimiser, None, watch)
    if plan.schedule == "cosine":
        return Rate(optimiser, torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: cosine(step, steps)), None)
    return Rate(optimiser, torch.optim.lr_scheduler.OneCycleLR(optimiser, epoch.max_lr, total_steps=steps), None)


def cosine(step: int, steps: int) -> float:
    """The share of the greatest rate: a short linear warm-up, then half a cosine down."""
    warm = max(1, round(WARM_UP * steps))
    if step < warm:
        return (step + 1) / warm
    done = min(1.0, (step - warm) / max(1, steps - warm))
    return SMALLEST_RATE + (1 - SMALLEST_RATE) * 0.5 * (1 + math.cos(math.pi * done))


def train_mode(net: nn.Module, epoch: Epoch) -> None:
    """Dropout and batch statistics on; a frozen trunk keeps the statistics it came with."""
    net.train()
    if epoch.head_only:
        for name, child in net.named_children():
            if name not in HEAD:
                child.eval()
