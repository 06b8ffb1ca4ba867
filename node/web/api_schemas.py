"""What the HTTP interface answers, as the OpenAPI document describes it; the answers are tested against it."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class _Open(BaseModel):
    """More members may come; none of these goes."""

    model_config = ConfigDict(extra="allow")


class ProblemDetails(_Open):
    """RFC 9457."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str


class Code(_Open):
    value: str
    scheme: str
    meaning: str


class Finding(_Open):
    label: str
    code: Code
    probability: float
    probability_sd: float
    mutual_information: float
    entropy: float
    present: bool


class Result(_Open):
    """One line of `opentriage analyse --json`: what one model said of the image."""

    schema_version: int
    study_instance_uid: str | None
    sop_instance_uid: str | None
    modality: str | None
    model: str | None
    model_version: str | None
    status: str = Field(
        description="analysed, not_assessed, not_applicable or failed; the last three say why in reason"
    )
    reason: str
    findings: list[Finding]
    priority: str | None
    critical_flags: list[str]
    recommendations: list[str]
    duration_ms: float


class Distribution(_Open):
    """Of one label by one model: the probabilities of both answers, and how sure the model is of them."""

    model: str | None
    label: str
    present: float
    absent: float
    sd: float
    mutual_information: float
    entropy: float


class Analysis(_Open):
    """Of one image: the most urgent of what the models said, and all that they said. It is no diagnosis."""

    schema_version: int
    received_at: str
    duration_ms: float
    priority: str | None = Field(description="HIGH, MEDIUM, NOT_ASSESSED or LOW; null: no model is meant for it")
    probabilities: list[Distribution]
    critical_flags: list[str]
    recommendations: list[str]
    results: list[Result]


class BatchItem(_Open):
    """index: of the part `file`, from 0. Either analysis or problem is there."""

    index: int
    analysis: Analysis | None = None
    problem: ProblemDetails | None = None


class Batch(_Open):
    schema_version: int
    items: list[BatchItem]
    failed: int


class Page(_Open):
    """next: what to give as `offset`, or as `before`, for the page after this; null: there is none."""

    schema_version: int
    items: list[dict[str, Any]]
    next: int | None


class Study(_Open):
    schema_version: int
    study_instance_uid: str
    hold: str
    events: list[dict[str, Any]]
    waiting: dict[str, Any] | None
    images: list[dict[str, Any]]
    objects: list[dict[str, Any]]
    told: list[dict[str, Any]]


class Released(_Open):
    job_id: int
    stage: str
