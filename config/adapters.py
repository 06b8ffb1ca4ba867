"""Settings of the adapters: what tells systems that are no PACS which study to read first. None by default."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from config.wanted import NAME, text_like

_Url = Annotated[
    str,
    text_like(
        r"^https?://[^\s/@?#]+(/[^\s@?#]*)?$",
        "an address begins with http:// or https:// and has no user, no '?' and no '#': for example "
        "'https://ris.example/ups'",
    ),
]
_Hl7Name = Annotated[str, text_like(r"^[\w. @:-]*$", NAME, max_length=180)]


class _Adapter(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[str, text_like(r"^[\w. @:-]+$", NAME, min_length=1, max_length=64)]
    on: Literal["high", "flagged", "all"] = "high"
    ca_file: Path = Path()  # of a private authority; "." : the system's certificates

    @property
    def key(self) -> str:
        """The adapter in ledger and logs."""
        return self.name

    def wants(self, priority: str) -> bool:
        """Whether a report of this priority is told. What was told once is also told when it changes."""
        heard = {"high": {"HIGH"}, "flagged": {"HIGH", "MEDIUM"}}
        return self.on == "all" or priority in heard[self.on]


class Hl7Adapter(_Adapter):
    """HL7 v2.5 ORU^R01 over MLLP."""

    kind: Literal["hl7"]
    host: Annotated[str, Field(min_length=1)]
    port: Annotated[int, Field(ge=1, le=65535)]
    tls: bool = False
    sending_application: _Hl7Name = "OPENTRIAGE"
    sending_facility: _Hl7Name = ""
    receiving_application: _Hl7Name = ""
    receiving_facility: _Hl7Name = ""
    processing_id: Literal["P", "T", "D"] = "P"


class UpsAdapter(_Adapter):
    """UPS-RS workitems (PS3.18 11)."""

    kind: Literal["ups"]
    url: _Url  # the service's root, below which are /workitems
    worklist_label: Annotated[str, Field(min_length=1, max_length=64)] = "AI TRIAGE"
    unflagged: Literal["MEDIUM", "LOW"] = "MEDIUM"
    token_file: Path = Path()  # holds a bearer token; ".": none


class WebhookAdapter(_Adapter):
    """A signed JSON document by HTTP POST."""

    kind: Literal["webhook"]
    url: _Url
    secret_file: Path  # what the signature is made with
    study_instance_uid: bool = True
    accession_number: bool = False


Adapter = Annotated[Hl7Adapter | UpsAdapter | WebhookAdapter, Field(discriminator="kind")]
