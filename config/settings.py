"""The settings, one frozen value checked at the door. Every key is explained in default.toml.

Units are in the names. Stages receive the few values they need, never the whole tree.
"""

import hashlib
import ipaddress
import json
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, PositiveFloat, PositiveInt, field_validator, model_validator

from config.adapters import Adapter
from config.audit import AuditSettings
from config.drift import DriftSettings
from config.frozen import Frozen
from config.keeping import HeartbeatSettings, RetentionSettings, SloSettings
from config.wanted import NAME, text_like
from config.web import Port, WebSettings

AE_TITLE_WANTED = (
    "an AE title has 1 to 16 characters of ASCII, no backslash and no control character, and is not blank: "
    "for example 'MAIN_PACS'"
)
AeTitle = Annotated[
    str,
    text_like(  # the default repertoire but the backslash (PS3.5 6.2)
        r"^[\x20-\x5b\x5d-\x7e]*[\x21-\x5b\x5d-\x7e][\x20-\x5b\x5d-\x7e]*$",
        AE_TITLE_WANTED,
        min_length=1,
        max_length=16,
    ),
]


def _networks(value: tuple[str, ...]) -> tuple[str, ...]:
    for network in value:
        ipaddress.ip_network(network)
    return value


Networks = Annotated[tuple[str, ...], AfterValidator(_networks)]  # an address is a network of one
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


class NodeSettings(Frozen):
    mode: Literal["live", "shadow"] = "live"
    state_dir: Path = Path("/var/lib/opentriage")
    database_url: str = ""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    stop_grace_s: PositiveFloat = 20.0
    confine: bool = True


class TlsSettings(Frozen):
    enabled: bool = False
    certificate_file: Path = Path()
    key_file: Path = Path()
    ca_file: Path = Path()
    mutual: bool = True
    profile: Literal["bcp195"] = "bcp195"
    crl_file: Path = Path()
    handshake_timeout_s: PositiveFloat = 10.0

    @model_validator(mode="after")
    def _files_named(self) -> "TlsSettings":
        needed = ("certificate_file", "key_file", *(("ca_file",) if self.mutual else ()))
        missing = [name for name in needed if getattr(self, name) == Path()]
        if self.enabled and missing:
            raise ValueError(f"TLS is enabled, but {' and '.join(missing)} is not named")
        return self


# Forward secrecy and authenticated encryption (RFC 9325 4.2); level 2: RSA of 2048 bits or more, no SHA-1 signatures.
BCP195_CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20:@SECLEVEL=2"


class OutgoingTls(Frozen):
    enabled: bool = False
    ca_file: Path = Path()
    certificate_file: Path = Path()
    key_file: Path = Path()
    crl_file: Path = Path()
    verify_host: bool = True

    @model_validator(mode="after")
    def _files_named(self) -> "OutgoingTls":
        if self.enabled and self.ca_file == Path():
            raise ValueError("TLS is enabled, but ca_file, the authority of the other side's certificate, is not named")
        if (self.certificate_file == Path()) != (self.key_file == Path()):
            raise ValueError("certificate_file and key_file belong together: name both, or neither")
        return self


class ReceiveSettings(Frozen):
    engine: Literal["native", "pynetdicom"] = "native"
    ae_title: AeTitle = "OPENTRIAGE"
    host: str = "0.0.0.0"  # noqa: S104  modalities are other machines
    port: Port = 11112
    max_associations: PositiveInt = 50
    max_associations_per_ae: Annotated[int, Field(ge=0)] = 0
    allowed_calling_ae_titles: tuple[AeTitle, ...] = ()
    require_called_ae_title: bool = True
    allowed_networks: Networks = ()
    private_sop_classes: tuple[Uid, ...] = ()
    accept_deflated: bool = False
    accept_big_endian: bool = False
    max_pdu_bytes: Annotated[int, Field(ge=4096, le=1_048_576)] = 131_072
    acse_timeout_s: PositiveFloat = 30.0
    dimse_timeout_s: PositiveFloat = 60.0
    network_timeout_s: PositiveFloat = 120.0
    min_bytes_per_s: Annotated[int, Field(ge=0)] = 8192
    in_flight_max_bytes: PositiveInt = 1_073_741_824
    max_instance_bytes: PositiveInt = 2_147_483_648
    max_nesting: PositiveInt = 32
    max_elements: PositiveInt = 200_000
    free_disk_min_bytes: Annotated[int, Field(ge=0)] = 5_368_709_120
    keep_stated_lists: bool = True
    commitment_patience_s: Annotated[float, Field(ge=0)] = 60.0
    processes: Annotated[int, Field(ge=0, le=16)] = 0
    tls: TlsSettings = TlsSettings()


class PeerBinding(Frozen):
    ae_title: AeTitle
    certificate_sha256: tuple[
        Annotated[
            str,
            text_like(
                r"^([0-9A-Fa-f]{64}|([0-9A-Fa-f]{2}:){31}[0-9A-Fa-f]{2})$",
                "a fingerprint is 64 hexadecimal digits, as `opentriage certs show FILE` prints it",
            ),
        ],
        ...,
    ] = ()
    certificate_names: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    networks: Networks = ()

    @property
    def key(self) -> str:
        """The peer in what check-config prints."""
        return self.ae_title.strip()

    @property
    def names_certificates(self) -> bool:
        """Whether a certificate is asked for."""
        return bool(self.certificate_sha256 or self.certificate_names)

    @model_validator(mode="after")
    def _bound_to_something(self) -> "PeerBinding":
        if not self.names_certificates and not self.networks:
            raise ValueError("binds to nothing: name certificate_sha256, certificate_names or networks")
        return self


class StudySettings(Frozen):
    complete_after_s: PositiveFloat = 20.0
    complete_after_min_s: PositiveFloat = 5.0
    complete_after_max_s: PositiveFloat = 120.0
    complete_after_release_s: PositiveFloat = 3.0
    complete_limit_s: PositiveFloat = 900.0
    count_at: str = ""
    triage_max_age_h: PositiveFloat = 24.0

    @model_validator(mode="after")
    def _in_order(self) -> "StudySettings":
        for less, more in (
            ("complete_after_min_s", "complete_after_max_s"),
            ("complete_after_max_s", "complete_limit_s"),
        ):
            if getattr(self, more) < getattr(self, less):
                cure = f"set {less} lower too" if more in self.model_fields_set else f"set {more} higher too"
                raise ValueError(f"{self._said(more)} is less than {self._said(less)}: {cure}")
        return self

    def _said(self, name: str) -> str:
        origin = "" if name in self.model_fields_set else " (the default)"
        return f"{name} = {getattr(self, name):g}{origin}"


class LookSettings(Frozen):
    models_dir: Path = Path()
    models: tuple[str, ...] = ()
    accept_licences: tuple[str, ...] = ()
    provider: Literal["auto", "cpu", "openvino", "cuda", "tensorrt"] = "auto"
    precision: Literal["auto", "float32"] = "auto"
    threads: Annotated[int, Field(ge=0)] = 0
    batch_max: PositiveInt = 8
    spare: bool = True
    decode_memory_bytes: PositiveInt = 2_147_483_648
    decode_cpu_s: PositiveFloat = 20.0
    decode_wall_s: PositiveFloat = 40.0
    decoded_max_bytes: PositiveInt = 536_870_912
    dcmdjpeg: Annotated[str, text_like(r"^(auto|off|/.+)$", "auto, off, or an absolute path")] = "auto"
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


class DecideSettings(Frozen):
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


class RecommendSettings(Frozen):
    high: str = "Read with priority."
    present: dict[str, str] = {
        "pneumonia": "Correlate clinically; consider a follow-up radiograph.",
        "fracture": "Correlate clinically; consider further views or cross-sectional imaging.",
        "tumour": "Correlate with prior imaging; consider further imaging.",
        "pneumothorax": "Read with priority; correlate clinically.",
    }
    doubt: str = "The model is in doubt: read with attention to this finding."
    not_assessed: str = "The model could not look at this image: read as without triage."


class ReportSettings(Frozen):
    manufacturer: str = "OpenTriage"
    model_name: str = "OpenTriage node"
    device_serial_number: str = "1"
    localization: Literal["off", "heatmap", "box"] = "heatmap"
    acr_categories: dict[Literal["critical", "HIGH", "MEDIUM"], Literal[1, 2, 3]] = {}
    max_attempts: PositiveInt = 3
    lease_s: PositiveFloat = 120.0


class Destination(Frozen):
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
    answers_from: Networks = ()
    tls: OutgoingTls = OutgoingTls()

    @property
    def key(self) -> str:
        """The destination in ledger, logs and metrics: its name, else AE@HOST:PORT.

        With a name, what waits for it follows it to another address.
        """
        return self.name or f"{self.ae_title}@{self.host}:{self.port}"


class CommitmentRequestor(Frozen):
    ae_title: AeTitle
    host: str
    port: Annotated[int, Field(ge=1, le=65535)]
    calling_ae_title: AeTitle = "OPENTRIAGE"
    retention_days: PositiveFloat
    tls: OutgoingTls = OutgoingTls()

    @property
    def key(self) -> str:
        """The sender in logs and metrics."""
        return f"{self.ae_title.strip()}@{self.host}:{self.port}"


class DeliverSettings(Frozen):
    prove_after_s: PositiveFloat = 5.0
    commitment_wait_s: PositiveFloat = 5.0
    commitment_answer_max_s: PositiveFloat = 300.0
    connect_timeout_s: PositiveFloat = 10.0
    response_timeout_s: PositiveFloat = 60.0
    retry_first_s: PositiveFloat = 1.0
    retry_max_s: PositiveFloat = 60.0
    lease_s: PositiveFloat = 300.0


class Settings(Frozen):
    node: NodeSettings = NodeSettings()
    receive: ReceiveSettings = ReceiveSettings()
    study: StudySettings = StudySettings()
    look: LookSettings = LookSettings()
    decide: DecideSettings = DecideSettings()
    recommend: RecommendSettings = RecommendSettings()
    report: ReportSettings = ReportSettings()
    deliver: DeliverSettings = DeliverSettings()
    web: WebSettings = WebSettings()
    audit: AuditSettings = AuditSettings()
    heartbeat: HeartbeatSettings = HeartbeatSettings()
    slo: SloSettings = SloSettings()
    retention: RetentionSettings = RetentionSettings()
    drift: DriftSettings = DriftSettings()
    destinations: tuple[Destination, ...] = ()
    commitment_requestors: tuple[CommitmentRequestor, ...] = ()
    peers: tuple[PeerBinding, ...] = ()
    adapters: tuple[Adapter, ...] = ()

    @field_validator("commitment_requestors")
    @classmethod
    def _requestors_differ(cls, value: tuple[CommitmentRequestor, ...]) -> tuple[CommitmentRequestor, ...]:
        titles = [requestor.ae_title.strip() for requestor in value]
        if len(titles) != len(set(titles)):
            raise ValueError("two of them have the same AE title")
        return value

    @model_validator(mode="after")
    def _looked_at_before_removed(self) -> "Settings":
        if 0 < self.retention.images_days * 24.0 < self.study.triage_max_age_h:
            raise ValueError(
                f"retention.images_days = {self.retention.images_days:g} is shorter than study.triage_max_age_h = "
                f"{self.study.triage_max_age_h:g}: a late image would revise a report whose images are gone"
            )
        return self

    @model_validator(mode="after")
    def _bindings_hold(self) -> "Settings":
        titles = [peer.key for peer in self.peers]
        if len(titles) != len(set(titles)):
            raise ValueError("peers: two of them have the same AE title")
        tls = self.receive.tls
        for peer in self.peers:
            if peer.names_certificates and not (tls.enabled and tls.mutual):
                raise ValueError(
                    f"peers: {peer.key} is bound to a certificate, and receive.tls asks nobody for one: "
                    "set enabled and mutual there"
                )
        return self

    @model_validator(mode="after")
    def _destinations_differ(self) -> "Settings":
        keys = [destination.key for destination in self.destinations]
        if len(keys) != len(set(keys)):
            raise ValueError("two destinations have the same name, or the same AE title, host and port")
        if self.study.count_at and self.study.count_at not in keys:
            raise ValueError(f"study.count_at is {self.study.count_at!r}, and no destination has that name")
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
