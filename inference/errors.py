"""Why an image could not be looked at: a stable short name and a sentence that quotes nothing from the file."""

from typing import Final

from ledger.errors import PermanentError, RetryableError

# What reading the answer of a child may raise that says what makes no sense.
SENSELESS: Final = (KeyError, TypeError, ValueError, IndexError, AttributeError, ArithmeticError, RecursionError)


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


class LostInModel(RetryableError):
    """The process that runs the models died, or gave no answer in time, while it looked at these images."""


class Undecided(LostInModel):
    """It was cut short by a time that was learned, or failed in a process that may be sick: that says nothing of these
    images. A fresh process that may take its time has the last word."""


class ModelsGone(RetryableError):
    """No process that runs the models as they were loaded can be had any more: whoever works with them ends."""
