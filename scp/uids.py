"""What a UID may look like, and what lies below one."""

import re

_UID = re.compile(r"(0|[1-9]\d*)(\.(0|[1-9]\d*))+", re.ASCII)  # PS3.5 9.1


def is_valid_uid(uid: str) -> bool:
    return len(uid) <= 64 and _UID.fullmatch(uid) is not None


def is_below(uid: str, root: str) -> bool:
    """Whether it is `root` or one of its branches."""
    return uid == root or uid.startswith(root + ".")
