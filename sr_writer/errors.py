"""What can go wrong while saying and delivering, sorted by what must happen next. No text names a patient."""

from ledger.errors import PermanentError, RetryableError


class SourceUnreadable(PermanentError):
    """No stored instance of the study has a header that can be read: nothing can be filed under its patient."""


class NothingToSay(PermanentError):
    """The findings hold no result that a report may speak of."""


class Unreachable(RetryableError):
    """There is no association with the destination; the text says what was tried and what came back."""


class NotProven(PermanentError):
    """What would be sent cannot be shown to be about its own patient; the text says which link broke."""


class NotNow(RetryableError):
    """Right before it left, the object turned out to be held, or no longer wanted: nothing is said of it."""
