"""Counters of whoever runs the models. Labels come from small closed sets, never from an image."""

from typing import Final, Literal

from prometheus_client import Counter

How = Literal["died", "cut", "hung", "failed"]
HOW: Final[tuple[How, ...]] = ("died", "cut", "hung", "failed")
MODEL_PROCESSES_LOST = Counter(
    "opentriage_look_model_processes_lost_total",
    "Processes of models that were lost at work: died, cut (no answer in the time that was learned), hung (none in all "
    "the time there is), failed (runs in succession)",
    ["how"],
)
for _how in HOW:  # from 0 on: an increase to the first one is seen only where the counter was there before
    MODEL_PROCESSES_LOST.labels(_how)
