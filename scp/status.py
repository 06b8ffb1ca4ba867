"""The one map from an error to the status of a C-STORE response (PS3.4 B.2.3, PS3.7 Annex C).

Refused is only what cannot be made durable or must not be had; everything else is stored and answered 0x0000.
No warning (0xB000, 0xB006, 0xB007) is ever sent: nothing is altered or discarded.
"""

from dataclasses import dataclass
from typing import Final

from scp.errors import (
    ClassNotAccepted,
    DataSetMismatch,
    InstanceTooLarge,
    InvalidUid,
    StoreUnavailable,
    StructureError,
)

SUCCESS = 0x0000
PROCESSING_FAILURE = 0x0110
INVALID_OBJECT_INSTANCE = 0x0117
SOP_CLASS_NOT_SUPPORTED = 0x0122
OUT_OF_RESOURCES = 0xA700
DATA_SET_MISMATCH = 0xA900
CANNOT_UNDERSTAND = 0xC000

COMMENT_MAX = 64  # (0000,0902) has VR LO


@dataclass(frozen=True)
class Answer:
    """What a C-STORE-RSP says. `comment` never holds patient data; `offending_element` is (group << 16) | element."""

    status: int
    comment: str = ""
    offending_element: int | None = None

    @property
    def is_success(self) -> bool:
        return self.status == SUCCESS


STATUS_OF: dict[type[Exception], int] = {
    StoreUnavailable: OUT_OF_RESOURCES,
    InstanceTooLarge: OUT_OF_RESOURCES,
    DataSetMismatch: DATA_SET_MISMATCH,
    StructureError: CANNOT_UNDERSTAND,
    InvalidUid: INVALID_OBJECT_INSTANCE,
    ClassNotAccepted: SOP_CLASS_NOT_SUPPORTED,
}
REFUSALS: Final = tuple(sorted({*STATUS_OF.values(), PROCESSING_FAILURE}))  # every status but success that is answered


def answer_to(error: Exception, stored: bool = False) -> Answer:
    """The response to `error`.

    An error that is not ours to foresee is 0x0110, but only if nothing was stored: once bytes are durable the
    sender must be told to try again, which 0xA700 does.
    """
    status = STATUS_OF.get(type(error))
    if status is None:
        if stored:
            return Answer(OUT_OF_RESOURCES, "internal error after storing, please resend")
        return Answer(PROCESSING_FAILURE, "internal error, nothing was stored")
    return Answer(status, str(error)[:COMMENT_MAX], getattr(error, "tag", None))
