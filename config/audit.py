"""Settings of the audit trail: where its chain heads go, and the repository that is told of it, none by default."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, model_validator

from config.wanted import NAME, text_like

_Name = Annotated[str, text_like(r"^[\w. @:-]*$", NAME, max_length=64)]


class AuditSettings(BaseModel):
    """repository_*: a DICOM audit record repository, by syslog over TLS (PS3.15 A.6)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    heads_file: Path = Path()
    enterprise_site_id: _Name = ""
    source_id: _Name = ""
    repository_host: str = ""
    repository_port: Annotated[int, Field(ge=1, le=65535)] = 6514  # RFC 5425 4.1
    ca_file: Path = Path()
    certificate_file: Path = Path()
    key_file: Path = Path()
    confirm: Literal["close", "sent"] = "close"
    late_after_min: PositiveFloat = 30.0

    @property
    def is_told(self) -> bool:
        return bool(self.repository_host)

    @property
    def repository(self) -> str:
        """The repository in ledger, logs and metrics."""
        return f"{self.repository_host}:{self.repository_port}"

    @model_validator(mode="after")
    def _both_named(self) -> "AuditSettings":
        if (self.certificate_file == Path()) != (self.key_file == Path()):
            raise ValueError("certificate_file and key_file belong together: name both, or neither")
        return self
