"""The manifest of a model package: what a model may look at and what its numbers mean.

A package is a folder with this manifest, one ONNX file and a few companions whose hashes the manifest pins.
"""

from itertools import pairwise
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from config.settings import Probability
from inference.histogram import Histogram
from ledger.records import Code

MANIFEST = "manifest.json"
FileName = Annotated[str, Field(max_length=100, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Side = Annotated[int, Field(ge=16, le=4096)]
Operating = Annotated[float, Field(gt=0.0, lt=1.0)]
WindowPreset = Literal["header", "lung", "bone", "soft_tissue", "brain"]
Task = Literal["classification", "segmentation", "detection"]
View = Literal["as_is", "mirrored", "closer", "wider", "left", "right", "up", "down"]
Doubt = Literal["sd", "mutual_information", "entropy", "max_probability", "distance"]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class CodeSpec(_Part):
    """A coded concept as it will stand in a report (PS3.3 8)."""

    value: Annotated[str, Field(min_length=1, max_length=16)]
    scheme: Annotated[str, Field(min_length=1, max_length=16)]
    meaning: Annotated[str, Field(min_length=1, max_length=64)]

    def record(self) -> Code:
        return Code(self.value, self.scheme, self.meaning)


class DataSource(_Part):
    name: str
    licence: str
    attribution: str = ""


class Licence(_Part):
    weights: Annotated[str, Field(min_length=1)]
    non_commercial: bool
    data: tuple[DataSource, ...] = ()


class Window(_Part):
    """A window in the units of the Modality LUT's output, for instance Hounsfield units."""

    center: float
    width: Annotated[float, Field(ge=1.0)]


class InputSpec(_Part):
    """The tensor the model was trained on: (N, channels, height, width) float32 in `value_range`."""

    name: str = "image"
    height: Side
    width: Side
    channels: Literal[1] = 1
    fit: Literal["squash", "letterbox"]
    window: WindowPreset | Window
    percentiles: tuple[float, float] | None
    histogram: Histogram = "none"  # after the percentiles, before the value range
    value_range: tuple[float, float]
    test_time: Annotated[tuple[View, ...], Field(min_length=1)] = ("as_is",)  # each seen; their passes stand in a row

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.percentiles and not 0.0 <= self.percentiles[0] < self.percentiles[1] <= 100.0:
            raise ValueError("percentiles must rise within 0 to 100")
        if self.value_range[0] >= self.value_range[1]:
            raise ValueError("value_range must rise")
        if self.test_time[0] != "as_is" or len(set(self.test_time)) != len(self.test_time):
            raise ValueError("test_time must begin with as_is and name no view twice")
        return self


class OutputNames(_Part):
    """Of every task scores (N, T, L) and features (N, C); and what shows the place, by task."""

    scores: str = "scores"
    features: str = "features"
    cam: str = "cam"  # classification, detection: (N, L, h, w)
    masks: str = "masks"  # segmentation: (N, L, H, W) in (0, 1)
    boxes: str = "boxes"  # detection: (N, B, 4)
    box_scores: str = "box_scores"  # detection: (N, B, L) in (0, 1), raw


class OperatingPoint(_Part):
    threshold: Operating
    sensitivity: Probability
    specificity: Probability
    chosen_on: str


class Calibration(_Part):
    """From a pass's raw score to a probability, applied to each pass.

    temperature, platt: p = sigmoid(logit(score) / temperature + bias). isotonic: linear between `knots`, pairs of
    (score, probability) that rise in both, and level beyond the first and the last. `chosen_on`: why this method.
    """

    method: Literal["none", "temperature", "platt", "isotonic"] = "temperature"
    temperature: Annotated[float, Field(gt=0.0)] = 1.0
    bias: float = 0.0
    knots: tuple[tuple[Probability, Probability], ...] = ()
    chosen_on: str = ""

    @model_validator(mode="after")
    def _knots_rise(self) -> Self:
        if (self.method == "isotonic") != bool(self.knots):
            raise ValueError("knots belong to isotonic, and isotonic needs them")
        if any(one[0] >= other[0] or one[1] > other[1] for one, other in pairwise(self.knots)):
            raise ValueError("knots must rise in score and must not fall in probability")
        return self


class PointingAccuracy(_Part):
    """How often the peak of a label's map lay within what readers had marked, over images that show the label.

    Only with it may a box be drawn from the map (`report.localization`), and then in the picture alone.
    """

    accuracy: Probability
    images: Annotated[int, Field(ge=1)]
    measured_on: Annotated[str, Field(min_length=1)]


class LabelSpec(_Part):
    label: Annotated[str, Field(max_length=40, pattern=r"^[a-z][a-z0-9_ ]*$")]
    code: CodeSpec
    site: CodeSpec | None = None
    operating_point: OperatingPoint
    high_operating_point: Operating | None = None
    calibration: Calibration = Calibration()
    pointing_accuracy: PointingAccuracy | None = None


class UncertaintySpec(_Part):
    method: Annotated[str, Field(min_length=1)]
    passes: Annotated[int, Field(ge=1, le=1000)]
    dropout: Annotated[float, Field(ge=0.0, lt=1.0)]
    seed: int
    text: Annotated[str, Field(min_length=1)]


class Reads(_Part):
    """Which images the package is meant for. `ages_years`: from (inclusive) to (exclusive); None: any age.

    `descriptions`: the protocol or the series must be called by one of these words (such as flair), and by none of
    `not_descriptions` (such as t1): compared word by word, whatever the case; a word of four letters or more may also
    begin a longer one. A series that is called nothing is not read then.
    """

    modalities: Annotated[tuple[str, ...], Field(min_length=1)]
    body_parts: Annotated[tuple[str, ...], Field(min_length=1)]
    views: tuple[str, ...] = ()
    descriptions: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    not_descriptions: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    ages_years: tuple[float, float] | None = None
    min_side_pixels: Annotated[int, Field(ge=1)] = 128

    @field_validator("modalities", "body_parts", "views")
    @classmethod
    def _code_strings(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if any(not term or term != term.upper().strip() for term in value):
            raise ValueError("must be code strings in capitals, such as DX, CHEST or PA")
        return value

    @model_validator(mode="after")
    def _ages_rise(self) -> Self:
        if self.ages_years and not 0.0 <= self.ages_years[0] < self.ages_years[1]:
            raise ValueError("ages_years must rise from 0 or more")
        return self


class GateSpec(_Part):
    """The distance (inference/distribution.py) beyond which an image is unlike everything seen in training."""

    file: FileName
    threshold: Annotated[float, Field(gt=0.0)]
    text: str


class Abstention(_Part):
    """When the package says "cannot assess" although the gate let the image pass (docs/adr/0008).

    `by` is the figure of doubt, greater is more doubtful; beyond `threshold` the package abstains. max_probability is
    taken as 1 - max(p, 1 - p). `coverage`: the share of the calibration split that is answered, what is present
    included, for which nobody abstains.
    """

    by: Doubt
    threshold: float
    coverage: Annotated[float, Field(gt=0.0, le=1.0)]
    text: Annotated[str, Field(min_length=1)]


class SegmentationSpec(_Part):
    """What a slice model's masks become: (N, L, H, W) in (0, 1) per slice, a volume per series, never a maximum."""

    mask_threshold: Operating = 0.5
    min_slices: Annotated[int, Field(ge=1)] = 2  # contiguous slices that a finding of a series needs
    min_volume_ml: Annotated[float, Field(ge=0.0)] = 0.5


class DetectionSpec(_Part):
    """Boxes of one label each: `boxes` (N, B, 4) as (top, left, bottom, right) in [0, 1] of the input, best first."""

    box_threshold: Operating
    max_boxes: Annotated[int, Field(ge=1, le=100)] = 5


class AgeGroup(_Part):
    """Patients for whom the package has figures of their own: same scores, other calibration and operating points.

    `ages_years`: from (inclusive) to (exclusive). `labels`: as the manifest's own, in the same order.
    """

    name: Annotated[str, Field(min_length=1, max_length=40)]
    ages_years: tuple[float, float]
    labels: Annotated[tuple[LabelSpec, ...], Field(min_length=1)]
    may_raise_priority: bool
    abstention: Abstention | None = None  # in place of the manifest's own

    @model_validator(mode="after")
    def _ages_rise(self) -> Self:
        if not 0.0 <= self.ages_years[0] < self.ages_years[1]:
            raise ValueError("ages_years must rise from 0 or more")
        return self

    def holds(self, age_years: float) -> bool:
        return self.ages_years[0] <= age_years < self.ages_years[1]


class Manifest(_Part):
    schema_version: Literal[1] = 1
    name: Annotated[str, Field(max_length=64, pattern=r"^[a-z0-9][a-z0-9-]*$")]
    version: Annotated[str, Field(max_length=32, pattern=r"^\d+\.\d+\.\d+(-[0-9A-Za-z.]+)?$")]
    created: Annotated[str, Field(pattern=r"^\d{4}-\d{2}-\d{2}$")]
    task: Task = "classification"
    intended_use: Annotated[str, Field(min_length=1)]
    not_for: Annotated[str, Field(min_length=1)]
    licence: Licence
    files: dict[FileName, Sha256]
    members: Annotated[tuple[FileName, ...], Field(min_length=1)] = (
        "model.onnx",
    )  # an ensemble has several, each once
    input: InputSpec
    outputs: OutputNames = OutputNames()
    labels: Annotated[tuple[LabelSpec, ...], Field(min_length=1)]
    uncertainty: UncertaintySpec
    reads: Reads
    gate: GateSpec | None = None
    age_groups: tuple[AgeGroup, ...] = ()  # those it is validated for, instead of one range in `reads`
    abstention: Abstention | None = None
    segmentation: SegmentationSpec | None = None
    detection: DetectionSpec | None = None
    may_raise_priority: bool

    @model_validator(mode="after")
    def _hangs_together(self) -> Self:
        missing = [member for member in self.members if member not in self.files]
        if missing or len(set(self.members)) != len(self.members):
            raise ValueError(
                f"members must differ, and files must list each: {', '.join(missing) or 'one stands twice'}"
            )
        if (self.task == "segmentation") != (self.segmentation is not None):
            raise ValueError("segmentation belongs to the task segmentation, and that task needs it")
        if (self.task == "detection") != (self.detection is not None):
            raise ValueError("detection belongs to the task detection, and that task needs it")
        if MANIFEST in self.files:
            raise ValueError("files must not list the manifest itself")
        if self.gate and self.gate.file not in self.files:
            raise ValueError(f"the gate's file {self.gate.file} is missing from files")
        names = [spec.label for spec in self.labels]
        if len(names) != len(set(names)):
            raise ValueError("two labels have the same name")
        return self

    @model_validator(mode="after")
    def _age_groups_hang_together(self) -> Self:
        names = [spec.label for spec in self.labels]
        if self.age_groups and self.reads.ages_years:
            raise ValueError("either age_groups or reads.ages_years says who is read, not both")
        if any([spec.label for spec in group.labels] != names for group in self.age_groups):
            raise ValueError("every age group must have the manifest's labels, in the same order")
        spans = sorted(group.ages_years for group in self.age_groups)
        if any(one[1] > other[0] for one, other in pairwise(spans)):
            raise ValueError("two age groups overlap")
        return self

    @model_validator(mode="after")
    def _distance_needs_a_gate(self) -> Self:
        rules = [self.abstention, *(group.abstention for group in self.age_groups)]
        if self.gate is None and any(rule is not None and rule.by == "distance" for rule in rules):
            raise ValueError("abstention by distance needs a gate")
        return self

    @property
    def ages_years(self) -> tuple[tuple[float, float], ...]:
        """The validated ranges of age, from (inclusive) to (exclusive); empty: any age."""
        if self.age_groups:
            return tuple(sorted(group.ages_years for group in self.age_groups))
        return (self.reads.ages_years,) if self.reads.ages_years else ()

    def group_at(self, age_years: float | None) -> AgeGroup | None:
        """Whom a patient of this age belongs to; None: the manifest's own labels stand for everybody."""
        if not self.age_groups or age_years is None:
            return None
        return next(group for group in self.age_groups if group.holds(age_years))

    def at_age(self, age_years: float | None) -> "Manifest":
        """As it stands for a patient of this age. Of an unknown age: the manifest's own labels, and no alarm unless
        every group may raise one."""
        if not self.age_groups:
            return self
        group = self.group_at(age_years)
        if group is None:
            return self.model_copy(update={"may_raise_priority": all(g.may_raise_priority for g in self.age_groups)})
        said = {"labels": group.labels, "may_raise_priority": group.may_raise_priority}
        return self.model_copy(update={**said, "abstention": group.abstention or self.abstention})

    @property
    def shows_boxes(self) -> bool:
        """Whether it draws boxes, or points well enough known for one to be drawn from its map."""
        specs = [*self.labels, *(spec for group in self.age_groups for spec in group.labels)]
        return self.task == "detection" or any(spec.pointing_accuracy is not None for spec in specs)

    def to_json(self) -> str:
        """The text of manifest.json, as training writes it."""
        return self.model_dump_json(indent=2) + "\n"


def parse_manifest(content: bytes) -> Manifest:
    """Read manifest.json. Raises ValueError with one sentence that names every key at fault."""
    try:
        return Manifest.model_validate_json(content)
    except ValidationError as error:
        faults = (f"{'.'.join(map(str, fault['loc'])) or 'file'}: {fault['msg']}" for fault in error.errors())
        raise ValueError("; ".join(faults)) from None


def read_manifest(folder: Path) -> Manifest:
    """For tools: the manifest of a package folder, its hashes unchecked."""
    return parse_manifest((folder / MANIFEST).read_bytes())
