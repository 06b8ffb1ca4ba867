"""The settings, one frozen value checked at the door. Every key is explained in default.toml.

Units are in the names. Stages receive the few values they need, never the whole tree.
"""

import hashlib
import ipaddress
import json
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt, field_validator, model_validator

from config.adapters import Adapter
from config.wanted import NAME, text_like

AeTitle = Annotated[
    str,
    text_like(
        r"^[^\\\x00-\x1f\x7f]*[^\\\x00-\x20\x7f][^\\\x00-\x1f\x7f]*$",
        "an AE title has no backslash and no control character, and is not blank: for example 'MAIN_PACS'",
        min_length=1,
        max_length=16,
    ),
]
Port = Annotated[int, Field(ge=0, le=65535)]  # 0 asks the system for a free port
Probability = Annotated[float, Field(ge=0.0, le=1.0)]
Uid = Annotated[
    str,
    text_like(  # PS3.5 9.1
        r"^(0|[1-9]\d*)(\.(0|[1-9]\d*))+$",
        "a UID is numbers with points between them, none with a leading nought: for example '1.2.840.10008.1.1'",
        max_length=64,
    ),
]
PriorityName = Literal["HIGH", "MEDIUM", "LOW"]
ProfileName = Literal["generic-pacs", "ohif", "orthanc-stone", "air", "triage-only"]
Contents = Literal["all", "sr", "text", "none"]  # of what a destination gets for a study


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class NodeSettings(_Frozen):
    state_dir: Path = Path("/var/lib/opentriage")
    database_url: str = ""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    stop_grace_s: PositiveFloat = 20.0


class ReceiveSettings(_Frozen):
    engine: Literal["pynetdicom"] = "pynetdicom"
    ae_title: AeTitle = "OPENTRIAGE"
    host: str = "0.0.0.0"  # noqa: S104  modalities are other machines
    port: Port = 11112
    max_associations: PositiveInt = 50
    allowed_calling_ae_titles: tuple[AeTitle, ...] = ()
    require_called_ae_title: bool = True
    allowed_networks: tuple[str, ...] = ()
    private_sop_classes: tuple[Uid, ...] = ()
    accept_deflated: bool = False
    accept_big_endian: bool = False
    max_pdu_bytes: Annotated[int, Field(ge=4096, le=1_048_576)] = 131_072
    acse_timeout_s: PositiveFloat = 30.0
    dimse_timeout_s: PositiveFloat = 60.0
    network_timeout_s: PositiveFloat = 120.0
    max_instance_bytes: PositiveInt = 2_147_483_648
    max_nesting: PositiveInt = 32
    max_elements: PositiveInt = 200_000
    free_disk_min_bytes: Annotated[int, Field(ge=0)] = 5_368_709_120

    @field_validator("allowed_networks")
    @classmethod
    def _networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for network in value:
            ipaddress.ip_network(network)
        return value


class StudySettings(_Frozen):
    complete_after_s: PositiveFloat = 20.0
    triage_max_age_h: PositiveFloat = 24.0


class LookSettings(_Frozen):
    models_dir: Path = Path()
    models: tuple[str, ...] = ()
    accept_licences: tuple[str, ...] = ()
    provider: Literal["auto", "cpu", "openvino", "cuda", "tensorrt"] = "auto"
    precision: Literal["auto", "float32"] = "auto"
    threads: Annotated[int, Field(ge=0)] = 0
    batch_max: PositiveInt = 8
    decode_memory_bytes: PositiveInt = 2_147_483_648
    decode_cpu_s: PositiveFloat = 20.0
    decode_wall_s: PositiveFloat = 40.0
    decoded_max_bytes: PositiveInt = 536_870_912
    unknown_age: Literal["refuse", "accept"] = "refuse"
    body_part_descriptions: dict[str, tuple[str, ...]] = {
        "CHEST": ("chest", "thorax", "torax", "cxr", "lung", "poumon", "lunge", "rippen"),
        "ABDOMEN": ("abdomen", "abdominal", "kub"),
        "PELVIS": ("pelvis", "becken", "bassin"),
        "SPINE": ("spine", "cspine", "lspine", "tspine", "hws", "bws", "lws", "rachis"),
        "SKULL": ("skull", "schaedel", "schädel", "crane", "sinus"),
        "SHOULDER": ("shoulder", "schulter", "clavicle", "scapula", "epaule"),
        "ARM": ("arm", "elbow", "forearm", "humerus", "ellenbogen", "unterarm", "oberarm", "coude"),
        "HAND": ("hand", "finger", "thumb", "wrist", "daumen", "poignet", "main"),
        "HIP": ("hip", "huefte", "hüfte", "hanche"),
        "LEG": ("leg", "femur", "tibia", "fibula", "knee", "patella", "knie", "genou"),
        "FOOT": ("foot", "toe", "ankle", "calcaneus", "fuss", "fuß", "pied", "cheville"),
    }
    frontal_descriptions: tuple[str, ...] = ("pa", "ap", "frontal", "p.a.", "a.p.", "a-p", "p-a")
    lateral_descriptions: tuple[str, ...] = ("lat", "lateral", "seitlich", "profil")
    max_attempts: PositiveInt = 3
    lease_s: PositiveFloat = 60.0


class DecideSettings(_Frozen):
    critical_findings: tuple[str, ...] = ("pneumonia", "fracture", "tumour", "pneumothorax")
    high_probability: Probability = 0.8
    critical_priority: Literal["HIGH", "MEDIUM"] = "HIGH"
    present_priority: Literal["HIGH", "MEDIUM"] = "MEDIUM"
    doubt_priority: PriorityName = "MEDIUM"
    doubt_margin: Probability = 0.1
    doubt_sd: Probability = 0.15
    thresholds: dict[str, Probability] = {}
    other_abnormality: bool = False
    other_abnormality_probability: Probability = 0.5
    respiratory_emergency_probability: Probability = 0.85
    neurological_risk_probability: Probability = 0.5
    critical_flags_in_dicom: bool = False


class RecommendSettings(_Frozen):
    high: str = "Read with priority."
    present: dict[str, str] = {
        "pneumonia": "Correlate clinically; consider a follow-up radiograph.",
        "fracture": "Correlate clinically; consider further views or cross-sectional imaging.",
        "tumour": "Correlate with prior imaging; consider further imaging.",
        "pneumothorax": "Read with priority; correlate clinically.",
    }
    doubt: str = "The model is in doubt: read with attention to this finding."
    not_assessed: str = "The model could not look at this image: read as without triage."


class ReportSettings(_Frozen):
    manufacturer: str = "OpenTriage"
    model_name: str = "OpenTriage node"
    device_serial_number: str = "1"
    localization: Literal["off", "heatmap", "box"] = "heatmap"
    acr_categories: dict[Literal["critical", "HIGH", "MEDIUM"], Literal[1, 2, 3]] = {}
    max_attempts: PositiveInt = 3
    lease_s: PositiveFloat = 120.0


class Destination(_Frozen):
    name: Annotated[str, text_like(r"^[\w. @:-]*$", NAME, max_length=64)] = ""
    ae_title: AeTitle
    host: str
    port: Annotated[int, Field(ge=1, le=65535)]
    calling_ae_title: AeTitle = "OPENTRIAGE"
    profile: ProfileName = "generic-pacs"
    flagged: Contents = "all"
    unflagged: Contents = "text"
    key_objects: Literal["profile", "off", "high"] = "profile"
    presentation_state: bool = False
    parametric_map: bool = False
    proof: tuple[Literal["commitment", "find", "qido"], ...] = ("commitment", "find")
    qido_url: str = ""

    @property
    def key(self) -> str:
        """The destination in ledger, logs and metrics: its name, else AE@HOST:PORT.

        With a name, what waits for it follows it to another address.
        """
        return self.name or f"{self.ae_title}@{self.host}:{self.port}"


class DeliverSettings(_Frozen):
    prove_after_s: PositiveFloat = 5.0
    commitment_wait_s: PositiveFloat = 5.0
    commitment_answer_max_s: PositiveFloat = 300.0
    connect_timeout_s: PositiveFloat = 10.0
    response_timeout_s: PositiveFloat = 60.0
    retry_first_s: PositiveFloat = 1.0
    retry_max_s: PositiveFloat = 60.0
    lease_s: PositiveFloat = 300.0


class WebSettings(_Frozen):
    host: str = "127.0.0.1"
    port: Port = 8042
    oldest_job_max_s: PositiveFloat = 300.0


class Settings(_Frozen):
    node: NodeSettings = NodeSettings()
    receive: ReceiveSettings = ReceiveSettings()
    study: StudySettings = StudySettings()
    look: LookSettings = LookSettings()
    decide: DecideSettings = DecideSettings()
    recommend: RecommendSettings = RecommendSettings()
    report: ReportSettings = ReportSettings()
    deliver: DeliverSettings = DeliverSettings()
    web: WebSettings = WebSettings()
    destinations: tuple[Destination, ...] = ()
    adapters: tuple[Adapter, ...] = ()

    @model_validator(mode="after")
    def _destinations_differ(self) -> "Settings":
        keys = [destination.key for destination in self.destinations]
        if len(keys) != len(set(keys)):
            raise ValueError("two destinations have the same name, or the same AE title, host and port")
        names = [adapter.key for adapter in self.adapters]
        if len(names) != len(set(names)) or set(names) & set(keys):
            raise ValueError("two adapters have the same name, or one has the name of a destination")
        return self

    @property
    def database_url(self) -> str:
        """SQLAlchemy URL of the ledger: the configured one, else SQLite below the state folder."""
        return self.node.database_url or f"sqlite:///{self.node.state_dir / 'ledger.sqlite'}"

    @property
    def results_hash(self) -> str:
        """SHA-256 of the settings that change what a result says; a changed port does not change it."""
        parts = {
            "look": self.look.model_dump(
                mode="json",
                include={"unknown_age", "body_part_descriptions", "frontal_descriptions", "lateral_descriptions"},
            ),
            "decide": self.decide.model_dump(mode="json"),
            "recommend": self.recommend.model_dump(mode="json"),
            "report": self.report.model_dump(mode="json", exclude={"max_attempts", "lease_s"}),
        }
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
