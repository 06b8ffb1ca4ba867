"""One model, one recipe: a TOML file parsed into frozen values and checked at the door.

Units are in the names or in the comments; an unknown key is refused, so that a misspelt option never passes as its
default. Every option of the augmentation, the sampler and the loss can be switched by name, for ablations.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from inference.histogram import Histogram
from inference.manifest import CodeSpec, DataSource, Reads, View
from training.recipe_file import CLASSIFICATION, Part, RecipeError, checked, read_toml

__all__ = ["Part", "Recipe", "RecipeError", "parse_recipe", "read_recipe"]

Share = Annotated[float, Field(ge=0.0, le=1.0)]
Range = tuple[float, float]
Name = Annotated[str, Field(min_length=1, max_length=60, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
Uncertain = Literal["ones", "zeros", "ignore", "ones-smoothed", "zeros-smoothed"]


class CsvColumns(Part):
    """Which column of labels.csv says what; "" where the file does not say. Defaults: CheXpert's."""

    image: str = "Path"
    patient: str = ""  # "": the folder patientNNNNN in the image's path
    age_years: str = "Age"
    sex: str = "Sex"
    view: str = "AP/PA"
    site: str = ""


class HoldOut(Part):
    """Everything whose `column` has this value is the test split; the rest is shared out among the others."""

    column: str
    value: str


class DataSet(Part):
    """One folder of images. `share` weighs it against the other sets when domains are balanced."""

    reader: Literal["chest_pneumonia", "chest_adult", "csv"]
    folder: str  # below --data
    domain: Name
    share: PositiveFloat = 1.0
    split: dict[str, Share]  # name -> share of patients, decided by a hash of the patient
    salt: str = ""  # of that hash; "": the recipe's name
    folds: Annotated[int, Field(ge=0)] = 0  # k > 1: test = fold `fold` of k groups of patients, split shares the rest
    fold: Annotated[int, Field(ge=0)] = 0
    hold_out: HoldOut | None = None  # leave one institution out
    where: dict[Literal["view", "sex", "site"], str] = Field(default_factory=dict)  # only rows of which this is true
    positive: dict[str, tuple[str, ...]] = Field(default_factory=dict)  # chest_adult: label -> findings that mean it
    negative: tuple[str, ...] = ("No Finding",)  # chest_adult: findings that deny every label; all else is unknown
    table: str = "labels.csv"  # csv: the table below folder
    columns: CsvColumns = CsvColumns()  # csv
    uncertain: Uncertain = "ignore"  # csv: what -1 means
    blank: Literal["negative", "unknown"] = "negative"  # csv: what an empty cell means

    @model_validator(mode="after")
    def _adds_up(self) -> Self:
        if not {"train", "calibration"} <= set(self.split):
            raise ValueError("split needs train and calibration")
        if abs(sum(self.split.values()) - 1.0) > 1e-6:
            raise ValueError(f"the shares of split add up to {sum(self.split.values()):g}, not to 1")
        if self.folds == 1 or self.fold >= max(self.folds, 1):
            raise ValueError("folds must be 0 or at least 2, and fold less than folds")
        if self.folds and self.hold_out:
            raise ValueError("folds and hold_out exclude each other")
        return self


class ModelPlan(Part):
    """The network, built by training.networks.registry; `metadata` names what it reads beside the image."""

    architecture: Name = "densenet121-attention"
    dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.5
    dropout_place: Literal["head", "last_block"] = "head"
    attention_ratio: PositiveInt | None = 16
    weights: Literal["none", "imagenet", "imagenet-if-available"] = "none"
    metadata: tuple[Literal["age", "sex", "view"], ...] = ()
    mc_passes: PositiveInt = 50
    mc_seed: int = 20261120


class SamplerPlan(Part):
    """Which images an epoch consists of. A cell is a domain, a class, or both."""

    method: Literal["shuffle", "weighted", "over", "under"] = "shuffle"
    domains: Literal["balanced", "natural"] = "natural"  # balanced: by the sets' `share`
    classes: Literal["balanced", "natural"] = "natural"  # of the first label
    epoch_images: Annotated[int, Field(ge=0)] = 0  # weighted: draws an epoch; 0: as many as there are

    @model_validator(mode="after")
    def _shuffle_balances_nothing(self) -> Self:
        if (self.method == "shuffle") != (self.domains == self.classes == "natural"):
            raise ValueError("shuffle balances nothing; weighted, over and under need balanced domains or classes")
        return self


class LossPlan(Part):
    kind: Literal["bce", "focal"] = "bce"
    gamma: Annotated[float, Field(ge=0.0)] = 2.0  # focal: how much easy images are played down
    class_weight: Literal["none", "balanced", "pos_weight"] = "none"  # pos_weight: positives times without / with
    label_smoothing: Annotated[float, Field(ge=0.0, lt=0.5)] = 0.0


class AugmentPlan(Part):
    """Uniform draws within the ranges; 0, or a range of no width, switches an option off."""

    rotation_deg: Annotated[float, Field(ge=0.0, le=45.0)] = 10.0  # either way
    scale: Range = (0.82, 1.08)  # share of each side that is looked at; each axis its own draw
    shift: Share = 0.12  # of half a side, either way
    border_crop: Annotated[float, Field(ge=0.0, le=0.4)] = 0.0  # each border loses up to this share of its side
    lung_crop: Range = (1.0, 1.0)  # share of both sides that a central crop keeps
    gamma: Range = (0.65, 1.5)
    contrast: Range = (0.75, 1.25)
    brightness: Share = 0.12  # either way
    blur: Share = 0.5  # share of the images, each by its own strength
    noise: Share = 0.03  # greatest sd
    erase_corners: Share = 0.5  # share of the images that lose one corner, where markers stand
    histogram_match: Share = 0.0  # share of the images that take the histogram of an image of another domain
    background: Share = 0.0  # share of the images whose background, outside the body, is made random
    invert: Share = 0.0
    mirror: Share = 0.0  # the heart has a side


class Stage(Part):
    size: Annotated[int, Field(ge=16, le=1024)]  # pixels
    epochs: PositiveInt


class HeadFirst(Part):
    """Two-phase fine-tuning: the classifier alone, then everything at `FitPlan.max_lr`."""

    epochs: PositiveInt
    max_lr: PositiveFloat


class FitPlan(Part):
    batch: Annotated[int, Field(ge=2)]
    max_lr: PositiveFloat
    stages: Annotated[tuple[Stage, ...], Field(min_length=1)]
    schedule: Literal["one-cycle", "cosine", "plateau"] = "one-cycle"
    head_first: HeadFirst | None = None
    weight_decay: Annotated[float, Field(ge=0.0)] = 0.02
    ema_decay: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.99  # 0: no averaging
    clip_norm: PositiveFloat = 2.0
    patience_epochs: Annotated[int, Field(ge=0)] = 0  # without a better AUC in the last stage; 0: never stop early
    keep: Literal["last", "best"] = "last"  # epoch of the last stage, by the AUC of the calibration split
    init: str = ""  # weights.pt to go on from, relative to the recipe's folder or absolute
    metadata_hidden: Share = 0.1  # of the training images, so that the network does without
    device: Literal["auto", "cpu", "cuda"] = "auto"
    autocast: bool = True  # bfloat16


class PretrainPlan(Part):
    """Self-supervised start: VICReg on every image of the train split, labelled or not."""

    size: Annotated[int, Field(ge=32, le=512)] = 96
    epochs: PositiveInt = 10
    batch: Annotated[int, Field(ge=8)] = 64
    max_lr: PositiveFloat = 1e-3
    projector: PositiveInt = 512  # its width


class CodePlan(Part):
    label: str
    code: CodeSpec
    site: CodeSpec | None = None


class AgeGroupPlan(Part):
    """Patients with a calibration and operating points of their own, chosen on the calibration split of `domains`."""

    name: str
    domains: Annotated[tuple[Name, ...], Field(min_length=1)]
    ages_years: Range  # from (inclusive) to (exclusive)
    target_sensitivity: Annotated[float, Field(gt=0.0, lt=1.0)]  # of the operating point, on the calibration split
    may_raise_priority: bool


class PackagePlan(Part):
    version: str
    created: str
    intended_use: str
    not_for: str
    weights_licence: str
    non_commercial: bool = False
    may_raise_priority: bool
    sources: Annotated[tuple[DataSource, ...], Field(min_length=1)]
    reads: Reads
    codes: tuple[CodePlan, ...]
    undoubted: Annotated[float, Field(gt=0.0, le=1.0)] | None = 0.99  # share that abstention leaves; None: none
    test_time: Annotated[tuple[View, ...], Field(min_length=1)] = ("as_is",)  # how often the node looks at a picture
    age_groups: tuple[AgeGroupPlan, ...] = ()  # none: everybody alike, and `reads.ages_years` says who is read

    @model_validator(mode="after")
    def _sees_it_as_it_is(self) -> Self:
        if self.test_time[0] != "as_is" or len(set(self.test_time)) != len(self.test_time):
            raise ValueError("test_time must begin with as_is and name no view twice")
        return self


class Recipe(Part):
    """Everything that makes one model."""

    name: Name
    labels: Annotated[tuple[str, ...], Field(min_length=1)]
    size: Annotated[int, Field(ge=16, le=1024)]  # of the exported model: height = width, pixels
    percentiles: Range = (0.5, 99.5)
    histogram: Histogram = "none"  # none | equalise | clahe, after the percentiles
    value_range: Range = (-1.0, 1.0)
    seed: int
    data: Annotated[tuple[DataSet, ...], Field(min_length=1)]
    model: ModelPlan = ModelPlan()
    sampler: SamplerPlan = SamplerPlan()
    loss: LossPlan = LossPlan()
    augment: AugmentPlan = AugmentPlan()
    fit: FitPlan
    pretrain: PretrainPlan = PretrainPlan()
    package: PackagePlan | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        domains = [part.domain for part in self.data]
        if len(set(domains)) < len(domains):
            raise ValueError("each data set needs a domain of its own")
        if self.package and [code.label for code in self.package.codes] != list(self.labels):
            raise ValueError("package.codes must name the labels, in their order")
        named = {domain for group in (self.package.age_groups if self.package else ()) for domain in group.domains}
        if named - set(domains):
            raise ValueError(f"package.age_groups name domains that no data set has: {', '.join(named - set(domains))}")
        return self

    def shipped(self) -> PackagePlan:
        if self.package is None:
            raise RecipeError(f"{self.name}: the recipe has no [package], so nothing can be shipped")
        return self.package


def parse_recipe(fields: Mapping[str, Any], where: str = "recipe") -> Recipe:
    """Raises RecipeError that names each key at fault. `task` may be said: it is classification."""
    if fields.get("task", CLASSIFICATION) != CLASSIFICATION:
        raise RecipeError(f"{where} is a recipe for {fields['task']}, not for {CLASSIFICATION}")
    return checked(Recipe, {key: value for key, value in fields.items() if key != "task"}, where)


def read_recipe(path: Path) -> Recipe:
    """Raises RecipeError; `fit.init` comes back as an absolute path."""
    return with_init_below(parse_recipe(read_toml(path), str(path)), path.parent)


def with_init_below(recipe: Recipe, folder: Path) -> Recipe:
    """The same with `fit.init` as an absolute path, where it is relative to the recipe's folder."""
    if not recipe.fit.init:
        return recipe
    init = str((folder / recipe.fit.init).absolute())
    return recipe.model_copy(update={"fit": recipe.fit.model_copy(update={"init": init})})
