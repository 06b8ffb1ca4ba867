"""The recipe of a detector: a TOML file with `task = "detection"`, parsed into frozen values."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from inference.manifest import CodeSpec, DataSource, Reads
from training.recipe import Share
from training.recipe_file import Part, checked, read_toml


class DetectorPlan(Part):
    """Channels at strides 2 to 32, residual blocks at strides 4 to 32, channels of pyramid and heads."""

    stages: tuple[PositiveInt, PositiveInt, PositiveInt, PositiveInt, PositiveInt] = (16, 32, 64, 128, 192)
    blocks: tuple[int, int, int, int] = (1, 2, 2, 1)
    head: PositiveInt = 64
    dropout: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.2
    mc_passes: PositiveInt = 50
    mc_seed: int = 20261120


class DetectorFit(Part):
    batch: Annotated[int, Field(ge=2)] = 16
    epochs: PositiveInt
    max_lr: PositiveFloat = 2e-3
    weight_decay: Annotated[float, Field(ge=0.0)] = 0.05
    ema_decay: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.99
    clip_norm: PositiveFloat = 5.0
    edge_weight: PositiveFloat = 2.0  # of the boxes' loss beside the heat map's
    judge_every: PositiveInt = 5  # epochs between figures on the calibration split
    autocast: bool = True  # bfloat16


class DetectorPackage(Part):
    version: str
    created: str
    intended_use: str
    not_for: str
    weights_licence: str
    may_raise_priority: bool
    source: DataSource
    reads: Reads
    label: str
    code: CodeSpec
    max_boxes: PositiveInt = 5
    false_boxes_per_image: PositiveFloat = 0.5  # on the calibration split: chooses the operating point


class DetectionRecipe(Part):
    task: Literal["detection"]
    name: str
    folder: str  # below --data
    size: Annotated[int, Field(ge=64, le=1024, multiple_of=32)]  # of the input: height = width, pixels
    percentiles: tuple[float, float] = (0.5, 99.5)
    value_range: tuple[float, float] = (-1.0, 1.0)
    seed: int
    split: dict[str, Share]  # name -> share of the groups, decided by a hash of the group
    model: DetectorPlan = DetectorPlan()
    fit: DetectorFit
    package: DetectorPackage

    @model_validator(mode="after")
    def _adds_up(self) -> "DetectionRecipe":
        if set(self.split) != {"train", "calibration", "test"} or abs(sum(self.split.values()) - 1.0) > 1e-6:
            raise ValueError("split needs train, calibration and test, which add up to 1")
        return self


def read_detection_recipe(path: Path) -> DetectionRecipe:
    """Raises RecipeError that names each key at fault."""
    return checked(DetectionRecipe, read_toml(path), str(path))
