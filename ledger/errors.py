"""Errors sorted by what must happen next. The raiser knows; nobody else guesses."""


class OpenTriageError(Exception):
    """Root of our own errors. The text never holds a patient's name or id."""


class RetryableError(OpenTriageError):
    """The same work may succeed later."""


class PermanentError(OpenTriageError):
    """The same work will never succeed: park it and tell a person."""


class LedgerUnavailable(RetryableError):
    """The ledger could not be read or written."""


class LeaseLost(OpenTriageError):
    """The job's lease expired and somebody else may hold it: drop the work, publish nothing."""
