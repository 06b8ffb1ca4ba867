"""The patient who must not be found anywhere but in the store and the quarantine."""

import re
from pathlib import Path

PATIENT_NAME = "ZZSENTINEL^TORTURED"
PATIENT_ID = "ZZPID-470817"
BIRTH_DATE = "19170423"
# Not within a longer number: of so many digits some are a date of birth by chance.
NEEDLES = re.compile(rf"ZZSENTINEL|TORTURED|{PATIENT_ID}|(?<![0-9]){BIRTH_DATE}(?![0-9])".encode())
MAY_HOLD = ("store", "quarantine")  # of a state folder


def hits_in(text: bytes) -> int:
    return len(NEEDLES.findall(text))


def scan(folder: Path, state: Path | None = None) -> tuple[int, int, list[Path]]:
    """(files, bytes) read below `folder`, and those that name the patient; not the store of `state`, its quarantine."""
    allowed = [state / name for name in MAY_HOLD] if state else []
    files = size = 0
    found = []
    for path in sorted(folder.rglob("*")):
        if path.is_symlink() or not path.is_file() or any(path.is_relative_to(place) for place in allowed):
            continue
        content = path.read_bytes()
        files, size = files + 1, size + len(content)
        if hits_in(content):
            found.append(path)
    return files, size, found
