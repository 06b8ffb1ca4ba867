"""Why an image could not be looked at: a stable short name and a sentence that quotes nothing from the file."""

from ledger.errors import PermanentError


class CannotLook(PermanentError):
    """This image cannot be judged, now or later."""

    def __init__(self, reason_code: str, reason: str) -> None:
        super().__init__(f"{reason_code}: {reason}")
        self.reason_code = reason_code
        self.reason = reason


class PackageError(PermanentError):
    """A model package is refused; the text names the file and the fault."""


class ProviderError(PermanentError):
    """The execution provider that the settings demand is not there."""
