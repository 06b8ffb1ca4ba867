"""What one stage hands to the next. The stages meet only here, so every record is defined once.

All records are frozen. Times are aware datetimes in UTC. No record carries a patient's name, id or birth date:
the result writer reads those from the stored instance itself. What only answers a question to the ledger stands with
the question: `ledger.worklist`, `ledger.views`, `ledger.history`, `ledger.commitments`, `ledger.notifications`.
What becomes of a result object at a destination is in `ledger.delivery_records`.
"""

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum


class TriagePriority(StrEnum):
    """Ordinal urgency of reading. NOT_ASSESSED (a model was meant to look and could not) is never shown as LOW."""

    HIGH = "HIGH"
    MEDIUM = "MEDIUM"
    NOT_ASSESSED = "NOT_ASSESSED"
    LOW = "LOW"

    @property
    def rank(self) -> int:
        """0 is most urgent."""
        return list(TriagePriority).index(self)


def most_urgent(priorities: list[TriagePriority]) -> TriagePriority:
    return min(priorities, key=lambda priority: priority.rank)


class Disposition(StrEnum):
    """What admission decided about a stored instance."""

    ANALYSE = "analyse"  # an image of a current study: a job waits for it
    PRIOR = "prior"  # an old study: stored and shown, never flagged
    OWN_RESULT = "own_result"  # one of our objects came back: stored, never analysed
    NOT_AN_IMAGE = "not_an_image"  # a report, a presentation state, a key object: stored
    REJECTION_NOTE = "rejection_note"  # a key object that says other instances must not be used (IHE IOCM)


NO_MODEL = "no_model"  # the reason code of an image that came to a node without any package


class ResultStatus(StrEnum):
    ANALYSED = "analysed"
    NOT_ASSESSED = "not_assessed"  # a model was meant for it and was refused by the gate, or it cannot be decoded
    NOT_APPLICABLE = "not_applicable"  # no model is meant for it
    FAILED = "failed"  # our own fault or a poisoned input, after the last attempt


@dataclass(frozen=True)
class Code:
    """A coded concept: value, coding scheme designator, meaning; together or not at all (PS3.3 8)."""

    value: str
    scheme: str
    meaning: str


@dataclass(frozen=True)
class ReceivedInstance:
    """A durable instance on disk, on its way into the ledger."""

    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str
    study_instance_uid: str
    transfer_syntax_uid: str
    modality: str
    sha256: str  # of the data set's bytes as received, file meta information not included
    size_bytes: int
    path: str  # relative to the store
    disposition: Disposition
    calling_ae_title: str
    peer_address: str
    association_id: str
    message_priority: int  # (0000,0700) of the C-STORE-RQ: 0 MEDIUM, 1 HIGH, 2 LOW
    received_at: datetime
    patient_digest: str = ""  # whose it is, in two keyed halves (ledger.standing); empty where the header does not say
    rejection: str = ""  # REJECTION_NOTE: code value of the document title, such as "113037"
    rejects: tuple[str, ...] = ()  # REJECTION_NOTE: the SOP Instance UIDs that it rejects


@dataclass(frozen=True)
class VolumeRule:
    """When a whole series has what a slice model looks for: enough contiguous slices, and enough volume."""

    min_slices: int
    min_volume_ml: float


@dataclass(frozen=True)
class ModelIdentity:
    """Which package looked, exactly.

    volume_rule: of a slice model, whose findings speak for a series together and never by themselves; None: each
    image speaks for itself.
    """

    name: str
    version: str
    digest: str  # SHA-256 over the package's manifest, which pins the hash of every other file
    passes: int  # Monte-Carlo passes behind each probability
    uncertainty: str  # how the sd is made, in words for the report
    volume_rule: VolumeRule | None = None


@dataclass(frozen=True)
class ActivationMap:
    """Class activation over the source image; row-major from the top left.

    values: (h, w) of floats, evidence for the label, in the label's logit units (may be negative).
    box: where the grid lies in source pixels: (top, left, bottom, right), right and bottom exclusive; may reach
    beyond the image where the input was letterboxed.
    """

    values: tuple[tuple[float, ...], ...]
    box: tuple[float, float, float, float]


@dataclass(frozen=True)
class Region:
    """A box that a detector drew. box: (top, left, bottom, right) in source pixels, bottom and right exclusive."""

    box: tuple[float, float, float, float]
    probability: float


@dataclass(frozen=True)
class Finding:
    """One coded statement about one image, with the numbers it rests on."""

    label: str  # lower case: pneumonia, fracture, tumour, ...
    code: Code
    score: float  # mean raw model output in (0, 1)
    probability: float  # mean after calibrating each pass
    probability_sd: float  # over the calibrated passes
    mutual_information: float  # nats: what the passes disagree about
    present: bool  # probability >= operating_point
    in_doubt: bool  # near its operating point, or the passes disagree
    operating_point: float
    high_operating_point: float
    site: Code | None = None
    activation: ActivationMap | None = None
    regions: tuple[Region, ...] = ()  # most probable first
    entropy: float = 0.0  # nats: of the mean probability, what is uncertain in all (predictive entropy)
    pointing_accuracy: float | None = None  # how often the map's peak lies in what was marked; None: never measured


@dataclass(frozen=True)
class SliceMask:
    """What a segmentation model marked in one image, in source geometry.

    path: a PNG of rows x columns, 255 where marked, relative to the store; empty where nothing is stored.
    pixels: how many are marked.
    """

    label: str
    path: str
    pixels: int


@dataclass(frozen=True)
class ImageResult:
    """What one model said of one instance, or why it said nothing.

    A NOT_APPLICABLE result has no model. `display_path` is an 8-bit greyscale PNG of the source image as a person
    sees it (larger = brighter), relative to the store; written for MEDIUM and HIGH only.
    """

    status: ResultStatus
    reason: str  # a sentence; empty when analysed
    reason_code: str  # a stable short name such as "age_unknown"; empty when analysed
    priority: TriagePriority | None  # None when not applicable
    model: ModelIdentity | None = None
    findings: tuple[Finding, ...] = ()
    critical_flags: tuple[str, ...] = ()
    recommendations: tuple[str, ...] = ()
    duration_ms: float = 0.0
    unverified_input: bool = False
    display_path: str | None = None
    source_rows: int = 0
    source_columns: int = 0
    settings_hash: str = ""
    source_sha256: str = ""  # of the data set's bytes that were decoded: the first link from pixels to result
    masks: tuple[SliceMask, ...] = ()  # of a segmentation model; none where nothing is marked
    ood_distance: float | None = None  # of the features from those seen in training; None: not computed
    computed_by: str = ""  # provider and precision, such as "openvino bfloat16"; empty where no model ran
    degraded: bool = False  # the node hoped for a better provider and did not get it
    may_raise: bool | None = None  # whether the model may raise this patient's priority; None: not known
    age_group: str = ""  # of the package's, the one whose operating points held; empty: those for every age

    @property
    def urgency(self) -> tuple[int, bool, float]:
        """Sorts the most urgent first: by priority, what was judged before what was not, the most probable finding."""
        rank = self.priority.rank if self.priority else len(TriagePriority)
        unjudged = self.status is not ResultStatus.ANALYSED
        return rank, unjudged, -max((finding.probability for finding in self.findings), default=0.0)


@dataclass(frozen=True)
class InstanceRef:
    """A stored instance as a stage sees it."""

    instance_id: int
    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str
    study_instance_uid: str
    transfer_syntax_uid: str
    modality: str
    sha256: str
    path: str
    received_at: datetime


class Stage(StrEnum):
    ANALYSE = "analyse"
    REPORT = "report"
    DELIVER = "deliver"
    PROVE = "prove"  # ask a destination whether it holds what it accepted
    NOTIFY = "notify"  # tell an adapter (HL7, UPS, webhook) the priority


class ReportKind(StrEnum):
    PROVISIONAL = "provisional"  # leaves at once because it raises the priority to HIGH; marked PARTIAL
    FINAL = "final"
    WITHDRAWN = "withdrawn"  # says that the reports before it no longer stand


@dataclass(frozen=True)
class Job:
    """One stage of work, held under a lease. `generation` is the fencing token: it moves with every claim."""

    job_id: int
    stage: Stage
    study_instance_uid: str
    generation: int
    attempt: int  # 1 for the first
    queued_at: datetime
    lease_expires_at: datetime
    instance: InstanceRef | None = None  # ANALYSE
    report_kind: ReportKind | None = None  # REPORT
    report_id: int | None = None  # DELIVER, PROVE, NOTIFY
    destination: str | None = None  # DELIVER, PROVE: Destination.key; NOTIFY: the adapter's key
    cause: str = ""  # REPORT: why a study is reported anew or withdrawn, in words for a reader
    is_heartbeat: bool = False  # of the node's own study (ledger.heartbeats)


@dataclass(frozen=True)
class InstanceResults:
    """One instance and what every model said of it."""

    instance: InstanceRef
    results: tuple[ImageResult, ...]


@dataclass(frozen=True)
class SentReference:
    """A result object that has been made before: for Predecessor Documents.

    destinations: where it is, or is on its way to. preference: its place in a choice. report_id: of which report.
    path, sha256: of the whole stored file.
    """

    kind: str
    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str
    destinations: tuple[str, ...] = ()
    preference: int = 0
    report_id: int = 0
    path: str = ""
    sha256: str = ""


@dataclass(frozen=True)
class EarlierReport:
    """What the report before this one said, and the content time of its objects."""

    kind: ReportKind
    priority: TriagePriority
    reported_at: datetime


@dataclass(frozen=True)
class VolumeFinding:
    """What a slice model says of one whole series: by volume and contiguous slices, never by its worst slice.

    A slice counts when it is marked and its own finding is present. slices: (instance, mask) of those that count, in
    order along the normal where `ordered`. volume_ml: theirs; None where the header does not give the spacing.
    longest_run: most contiguous slices that count. probability: mean over the slices that count, else over all.
    undetermined: neither present nor absent can be said, `remark` says why; `remark` may stand without it.
    distance_mm: between neighbouring slices; None where the header does not give it.
    """

    series_instance_uid: str
    label: str
    code: Code
    site: Code | None
    model: ModelIdentity
    present: bool
    volume_ml: float | None
    longest_run: int
    slices_looked_at: int
    probability: float
    probability_sd: float
    slices: tuple[tuple[InstanceRef, SliceMask], ...]
    ordered: bool = True
    slices_unjudged: int = 0  # meant for the model, and not looked at
    distance_mm: float | None = None
    undetermined: bool = False
    remark: str = ""


@dataclass(frozen=True)
class StudyFindings:
    """All that a report may say: the routed instances of one study with their results. Never empty.

    `reported_at` stands in every object as its content time, so that a rebuild before the commit is identical.
    """

    study_instance_uid: str
    kind: ReportKind
    priority: TriagePriority
    looked_at: tuple[InstanceResults, ...]
    reported_at: datetime
    predecessors: tuple[SentReference, ...] = ()
    volumes: tuple[VolumeFinding, ...] = ()  # of slice models; filled in by the report role
    follows: EarlierReport | None = None  # the last one before it
    cause: str = ""  # why it is made after another, or withdraws it: a sentence for a reader
    revision: int = 0  # how many reports of the study were made before: part of who its objects are
    takes_back: tuple[SentReference, ...] = ()  # of a withdrawal: our objects that name the patient where no image does
    confirms: bool = False  # a final one that says what its provisional one said, and of no other image that is flagged


@dataclass(frozen=True)
class ResultObject:
    """A finished DICOM object. `content` is the whole Part 10 file; these bytes are stored and resent unchanged."""

    kind: str  # "measurement_sr", "text_sr", "secondary_capture", "segmentation", "key_objects", ...
    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str
    transfer_syntax_uid: str
    content: bytes = field(repr=False)
    choice: str = ""  # objects of one report with the same choice say the same: a destination gets one of them
    preference: int = 0  # within a choice: the smallest that the destination accepts is sent


@dataclass(frozen=True)
class StoredObject:
    """A result object as delivery sees it: the stored file is sent byte for byte."""

    object_id: int
    kind: str
    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    sha256: str
    path: str
    priority: TriagePriority
    choice: str = ""
    preference: int = 0
    report_id: int = 0
    series_instance_uid: str = ""
