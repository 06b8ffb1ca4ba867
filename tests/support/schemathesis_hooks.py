"""For the command `schemathesis run` (SCHEMATHESIS_HOOKS): what the OpenAPI document cannot say."""

from typing import Any

import schemathesis

STORE = 'multipart/related; type="application/dicom"; boundary=part'


@schemathesis.serializer("multipart/related")
def multipart_related(context: Any, value: Any) -> Any:
    """Whatever was made up, as the one part of a store request (PS3.18 10.5)."""
    content = value if isinstance(value, bytes) else str(value).encode("utf-8", "replace")
    return b"--part\r\nContent-Type: application/dicom\r\n\r\n" + content + b"\r\n--part--\r\n"


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: Any) -> None:
    """A store request names its boundary."""
    if (case.media_type or "").startswith("multipart/related"):
        case.headers = {**(case.headers or {}), "Content-Type": STORE}
