"""Images that were uploaded to be looked at: files in state_dir/uploads for as long as that takes, and no longer.

Folder 0700, files 0600, names of our own. What a crash leaves is swept when the role starts. The disk is the routed
images' first: an upload is refused while they still have room.
"""

import contextlib
import os
import re
import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from config import Settings
from node.looking.wire import uploads_dir
from node.web.parts import boundary_of, media_type, take_parts
from node.web.problems import Problem

SUFFIX: Final = ".upload"
FIELD_MAX: Final = 100
OTHER_PARTS_MAX: Final = 8
AGE_MAX: Final = 150.0
CHECK_SPACE_BYTES: Final = 64 * 1024 * 1024
ROOM: Final = 2  # times receive.free_disk_min_bytes, below which routed images are refused
PICTURES: Final = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff")  # PNG, JPEG
DICOM_AT, DICOM = 128, b"DICM"  # PS3.10 7.1
NUMBER: Final = re.compile(r"[0-9]+(\.[0-9]+)?([eE][-+]?[0-9]+)?")  # as JSON writes it; Python reads more as one
KIND: Final = re.compile(r"[a-z]{2,20}(-[a-z]{2,20}){0,3}")


@dataclass
class Upload:
    """One file. beginning: its first bytes, to tell what it is; it is decoded elsewhere."""

    path: Path
    size_bytes: int = 0
    beginning: bytes = b""

    @property
    def is_picture(self) -> bool:
        return self.beginning.startswith(PICTURES)

    @property
    def is_dicom(self) -> bool:
        return self.beginning[DICOM_AT:].startswith(DICOM)


@dataclass
class Form:
    """files: parts named `file`; as_kind, age: what PNG and JPEG files show, and whose."""

    files: list[Upload] = field(default_factory=list)
    fields: dict[str, str] = field(default_factory=dict)

    @property
    def as_kind(self) -> str | None:
        kind = self.fields.get("as")
        if kind is not None and not KIND.fullmatch(kind):
            raise Problem(422, "The field `as` is the name of a kind of picture, such as chest-xray.")
        return kind

    @property
    def age(self) -> float | None:
        text = self.fields.get("age")
        if text is None:
            return None
        age = float(text) if NUMBER.fullmatch(text) else -1.0
        if not 0.0 <= age <= AGE_MAX:
            raise Problem(422, f"The field `age` is a number of years from 0 to {AGE_MAX:g}.")
        return age


class _Spool:
    """Takes the parts of a form."""

    def __init__(self, settings: Settings, most: int) -> None:
        self.form = Form()
        self._most = most
        self._folder = uploads_dir(settings)
        self._room = settings.receive.free_disk_min_bytes * ROOM
        self._fd = -1
        self._field = ""
        self._value = b""
        self._unchecked = CHECK_SPACE_BYTES

    def begin(self, headers: Mapping[str, str]) -> None:
        _, options = media_type(headers.get("content-disposition", ""))
        name = options.get("name", "")
        if name not in ("file", "as", "age"):
            raise Problem(422, "A part of the form is not one of: file, as, age.")
        if name == "file" and not options.get("filename"):
            raise Problem(422, "The part `file` is no file: it has no filename.")
        self._field = name
        if name == "file":
            if len(self.form.files) >= self._most:
                raise self.wrong_count()
            path = self._folder / f"{os.getpid()}-{secrets.token_hex(8)}{SUFFIX}"
            self._fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_WRONLY | os.O_CLOEXEC, 0o600)
            self.form.files.append(Upload(path))

    def data(self, chunk: bytes) -> None:
        if self._fd < 0:
            self._value += chunk
            if len(self._value) > FIELD_MAX:
                raise Problem(422, f"The field `{self._field}` is too long.")
            return
        upload = self.form.files[-1]
        self._check_space(len(chunk))
        upload.size_bytes += len(chunk)
        if len(upload.beginning) < DICOM_AT + len(DICOM):
            upload.beginning = (upload.beginning + chunk)[: DICOM_AT + len(DICOM)]
        try:
            view = memoryview(chunk)
            while view:
                view = view[os.write(self._fd, view) :]
        except OSError:
            raise Problem(503, "The upload cannot be kept: the disk does not take it.", {"Retry-After": "60"}) from None

    def end(self) -> None:
        if self._fd >= 0:
            self._shut()
            return
        if self._field in self.form.fields:
            raise Problem(422, f"The field `{self._field}` is there twice.")
        self.form.fields[self._field] = self._value.decode("utf-8", "replace").strip()
        self._value = b""

    def wrong_count(self) -> Problem:
        what = "one part" if self._most == 1 else f"1 to {self._most} parts"
        return Problem(422, f"The form needs {what} named `file`.")

    def clear(self) -> None:
        """Nothing of it is left."""
        self._shut()
        for upload in self.form.files:
            upload.path.unlink(missing_ok=True)

    def _check_space(self, size: int) -> None:
        self._unchecked += size
        if self._unchecked >= CHECK_SPACE_BYTES:
            self._unchecked = 0
            volume = os.statvfs(self._folder)
            if volume.f_bavail * volume.f_frsize < self._room:
                raise Problem(503, "The disk is kept free for images that are sent here.", {"Retry-After": "60"})

    def _shut(self) -> None:
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            os.close(fd)


@asynccontextmanager
async def uploaded(request: Request, settings: Settings, most: int) -> AsyncIterator[Form]:
    """The form of a request, with at least one file and at most `most`, until the end of the block. Raises Problem."""
    kind, options = media_type(request.headers.get("content-type", ""))
    if kind != "multipart/form-data":
        raise Problem(415, "Send a form with files: Content-Type multipart/form-data.")
    spool = _Spool(settings, most)
    try:
        await take_parts(request, boundary_of(options), spool, most + OTHER_PARTS_MAX)
        if not spool.form.files:
            raise spool.wrong_count()
        yield spool.form
    finally:
        await run_in_threadpool(spool.clear)


def sweep(settings: Settings) -> int:
    """Delete what an earlier process left. Call before anything is uploaded."""
    left = [path for path in uploads_dir(settings).iterdir() if path.name.endswith(SUFFIX)]
    for path in left:
        with contextlib.suppress(OSError):
            path.unlink()
    return len(left)
