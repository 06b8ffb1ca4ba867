"""Settings of the page and the HTTP interface."""

import ipaddress
from pathlib import Path
from typing import Annotated

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from config.frozen import Frozen

Port = Annotated[int, Field(ge=0, le=65535)]  # 0 asks the system for a free port


class WebTlsSettings(Frozen):
    certificate_file: Path = Path()
    key_file: Path = Path()

    @property
    def enabled(self) -> bool:
        return self.certificate_file != Path()

    @model_validator(mode="after")
    def _both_named(self) -> "WebTlsSettings":
        if (self.certificate_file == Path()) != (self.key_file == Path()):
            raise ValueError("certificate_file and key_file belong together: name both, or neither")
        return self


class WebSettings(Frozen):
    host: str = "127.0.0.1"
    port: Port = 8042
    oldest_job_max_s: PositiveFloat = 300.0
    insecure_plaintext: bool = False
    open_off_loopback: bool = False
    session_max_h: PositiveFloat = 12.0
    max_upload_bytes: PositiveInt = 536_870_912
    max_uploads: PositiveInt = 64
    max_stow_bytes: PositiveInt = 4_294_967_296
    max_at_once: PositiveInt = 16
    body_timeout_s: PositiveFloat = 300.0
    min_bytes_per_s: Annotated[int, Field(ge=0)] = 8192
    look_timeout_s: PositiveFloat = 60.0
    tls: WebTlsSettings = WebTlsSettings()

    @property
    def is_on_loopback(self) -> bool:
        """Whether only programs on this machine can reach it."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    @model_validator(mode="after")
    def _never_in_the_clear(self) -> "WebSettings":
        if not self.is_on_loopback and not self.tls.enabled and not self.insecure_plaintext:
            raise ValueError(
                f"host = {self.host!r} can be reached from other machines, and tokens and patients' data would cross "
                "the network in the clear: name certificate_file and key_file in [web.tls], or set "
                "insecure_plaintext = true"
            )
        return self
