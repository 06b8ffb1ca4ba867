"""What can be wrong with one C-STORE, sorted by what the sender has to do next. `scp/status.py` maps each to a status.

Texts end up in logs and in the Error Comment (0000,0902), so none of them ever quotes a value from a data set.
"""


class ReceiveError(Exception):
    """An instance was not admitted. Raised while nothing is acknowledged."""


class StoreUnavailable(ReceiveError):
    """We cannot make anything durable now: a sync failed, the ledger is away, the disk is full. Try again later."""


class InstanceTooLarge(ReceiveError):
    """The data set is longer than the configured limit."""


class InvalidUid(ReceiveError):
    """A required UID has a syntax that PS3.5 9.1 does not allow."""

    def __init__(self, text: str, tag: int | None = None) -> None:
        super().__init__(text)
        self.tag = tag


class DataSetMismatch(ReceiveError):
    """The data set is not what the command set announced, or lacks an identity. `tag` is the offending element."""

    def __init__(self, text: str, tag: int) -> None:
        super().__init__(text)
        self.tag = tag


class ClassNotAccepted(ReceiveError):
    """The SOP class of the message is not that of its presentation context."""


class StructureError(ReceiveError):
    """The data set cannot be walked to its end. `tag` is the element where it went wrong, None when unknown."""

    def __init__(self, text: str, tag: int | None = None) -> None:
        super().__init__(text if tag is None else f"{text} at ({tag >> 16:04X},{tag & 0xFFFF:04X})")
        self.tag = tag
