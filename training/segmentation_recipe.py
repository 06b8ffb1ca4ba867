"""The recipe of a slice model: a TOML file with `task = "segmentation"`, parsed into frozen values."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from inference.fit_input import Fit
from inference.manifest import CodeSpec, DataSource, Reads, SegmentationSpec
from training.recipe import Range, Share, Stage
from training.recipe_file import Part, checked, read_toml


class SegmenterPlan(Part):
    """`widths`: channels of the four contracting blocks and of the bottleneck."""

    widths: Annotated[tuple[PositiveInt, ...], Field(min_length=5, max_length=5)] = (32, 48, 96, 160, 224)
    dropout: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.5
    mc_passes: PositiveInt = 50
    mc_seed: int = 20261121


class HoldBack(Part):
    """Shares of each institution's patients that do not train. With one institution left out, that one is the test."""

    calibration: Share
    test: Share


class SegmenterFit(Part):
    batch: Annotated[int, Field(ge=2)] = 16
    epoch_slices: PositiveInt  # drawn in each epoch, so that a fold with few patients gets the same schedule
    marked_share: Share = 0.6  # of those drawn
    max_lr: PositiveFloat = 2e-3
    weight_decay: Annotated[float, Field(ge=0.0)] = 0.02
    ema_decay: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.99
    clip_norm: PositiveFloat = 2.0
    pixel_weight: PositiveFloat = 1.0  # of the masks' cross-entropy beside their Dice
    slice_weight: PositiveFloat = 0.2  # of the slices' cross-entropy
    least_pixels: PositiveInt = 8  # of a mask in the training size: with fewer, augmentation has moved it out
    stages: Annotated[tuple[Stage, ...], Field(min_length=1)]
    fold_stages: Annotated[tuple[Stage, ...], Field(min_length=1)]  # with an institution left out


class SegmenterPackage(Part):
    version: str
    created: str
    intended_use: str
    not_for: str
    weights_licence: str
    non_commercial: bool
    may_raise_priority: bool
    sources: Annotated[tuple[DataSource, ...], Field(min_length=1)]
    reads: Reads
    label: str
    code: CodeSpec
    site: CodeSpec | None = None
    segmentation: SegmentationSpec = SegmentationSpec()


class SegmentationRecipe(Part):
    task: Literal["segmentation"]
    name: str
    folder: str  # below --data
    size: Annotated[int, Field(ge=64, le=512, multiple_of=32)]  # of the input: height = width, pixels
    shape: Fit = "letterbox"
    percentiles: Range = (0.5, 99.5)
    value_range: Range = (0.0, 1.0)
    test_time: tuple[Literal["as_is", "mirrored"], ...] = ("as_is",)  # how often a slice is looked at, masks averaged
    seed: int
    split: HoldBack
    model: SegmenterPlan = SegmenterPlan()
    fit: SegmenterFit
    package: SegmenterPackage

    @model_validator(mode="after")
    def _hangs_together(self) -> Self:
        if self.split.calibration + self.split.test >= 1.0:
            raise ValueError("split leaves nobody to train on")
        if any(stage.size % 32 for stage in (*self.fit.stages, *self.fit.fold_stages)):
            raise ValueError("the sizes of the stages must be multiples of 32")
        return self


def read_segmentation_recipe(path: Path) -> SegmentationRecipe:
    """Raises RecipeError that names each key at fault."""
    return checked(SegmentationRecipe, read_toml(path), str(path))
