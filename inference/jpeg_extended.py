"""12-bit JPEG Extended (1.2.840.10008.1.2.4.51, process 4) through DCMTK's dcmdjpeg, in the decode child.

The program never sees the instance. It gets one frame, wrapped in a data set of our own making, on its standard input,
and answers on its standard output: no file is written, and none is named on its command line, which is fixed. It
inherits the child's limits on memory and files, has its own on processor time, and stays in the child's process group,
which the node kills as a whole (inference/sandbox.py).
"""

import io
import os
import resource
import selectors
import signal
import struct
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread, dcmwrite
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.errors import InvalidDicomError
from pydicom.uid import ExplicitVRLittleEndian, JPEGExtended12Bit, SecondaryCaptureImageStorage

from inference.errors import CannotLook

ARGUMENTS = ("--read-file-only", "--write-xfer-little", "-", "-")  # a Part 10 file, in and out through pipes
ENVIRONMENT = {"PATH": "", "LC_ALL": "C"}
HEADER_BYTES = 4096  # what dcmdjpeg may write beside the pixels
WARNING_BYTES = 4096
# Encoders that fill in the scan header's parameters of progressive JPEG; a sequential decoder has no use for them.
HARMLESS = frozenset({b"W: Invalid SOS parameters for sequential JPEG"})
AT_ONCE = 1 << 16
UNREADABLE = (ValueError, TypeError, KeyError, AttributeError, EOFError, struct.error, InvalidDicomError)


@dataclass(frozen=True)
class Limits:
    """program: dcmdjpeg's absolute path. cpu_s, wall_s: what one frame may take."""

    program: Path
    cpu_s: float
    wall_s: float


def decode_frame(frame: bytes, rows: int, columns: int, bits_stored: int, limits: Limits) -> NDArray[np.uint16]:
    """(rows, columns). frame: one whole JPEG codestream of one component. Raises CannotLook for whatever is amiss,
    nearly every warning included: of a codestream that is cut short dcmdjpeg only warns, and makes up the rest."""
    given = _wrapped(frame, rows, columns, bits_stored)
    most = 2 * rows * columns + HEADER_BYTES
    answer = _Conversation(limits, most).hold(given)
    try:
        ds = dcmread(io.BytesIO(answer))
        data = ds.PixelData
        told = (ds.Rows, ds.Columns, ds.BitsAllocated, ds.SamplesPerPixel, ds.file_meta.TransferSyntaxUID)
    except UNREADABLE as error:
        raise _failed() from error
    if told != (rows, columns, 16, 1, ExplicitVRLittleEndian) or len(data) != 2 * rows * columns:
        raise CannotLook("decode_failed", "The decoder returned another size than the header says.")
    return np.frombuffer(data, "<u2").reshape(rows, columns)


def _wrapped(frame: bytes, rows: int, columns: int, bits_stored: int) -> bytes:
    """A Part 10 file that holds the frame and what dcmdjpeg must know of it, and nothing of the instance."""
    ds = Dataset()
    ds.SOPClassUID, ds.SOPInstanceUID = SecondaryCaptureImageStorage, "2.25.1"
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.Rows, ds.Columns = rows, columns
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, bits_stored, bits_stored - 1, 0
    ds.PixelData = encapsulate([frame])
    ds["PixelData"].VR, ds["PixelData"].is_undefined_length = "OB", True
    ds.file_meta = FileMetaDataset()
    ds.file_meta.MediaStorageSOPClassUID, ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPClassUID, ds.SOPInstanceUID
    ds.file_meta.TransferSyntaxUID = JPEGExtended12Bit
    file = io.BytesIO()
    dcmwrite(file, ds, enforce_file_format=True)
    return file.getvalue()


def _failed() -> CannotLook:
    return CannotLook("decode_failed", "The pixel data cannot be decoded.")


def _too_long() -> CannotLook:
    return CannotLook("decode_limit", "Decoding took longer than this node allows.")


class _Conversation:
    """One run of the program: what it is given goes in while what it says comes out, until it has said too much."""

    def __init__(self, limits: Limits, most: int) -> None:
        self._limits, self._most = limits, most
        self._deadline = time.monotonic() + limits.wall_s
        self._selector = selectors.DefaultSelector()
        self._said, self._warned = bytearray(), bytearray()

    def hold(self, given: bytes) -> bytes:
        process = self._start()
        try:
            self._exchange(process, memoryview(given))
            code = process.wait(max(0.0, self._deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            raise _too_long() from None
        finally:
            self._end(process)
        if code in (-signal.SIGXCPU, -signal.SIGKILL):
            raise _too_long()
        if code or not HARMLESS.issuperset(bytes(self._warned).splitlines()):
            raise _failed()
        return bytes(self._said)

    def _start(self) -> subprocess.Popen[bytes]:
        pipe = subprocess.PIPE
        command = [str(self._limits.program), *ARGUMENTS]
        try:
            process = subprocess.Popen(
                command, stdin=pipe, stdout=pipe, stderr=pipe, env=ENVIRONMENT, cwd="/", bufsize=0
            )
        except OSError as error:
            raise CannotLook("decoder_missing", "DCMTK's dcmdjpeg, which 12-bit JPEG needs, cannot be run.") from error
        seconds = int(self._limits.cpu_s) + 1  # it waits for its input: before this it can have spent nothing
        resource.prlimit(process.pid, resource.RLIMIT_CPU, (seconds, seconds + 1))
        return process

    def _exchange(self, process: subprocess.Popen[bytes], given: memoryview) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        self._watch(process.stdin, selectors.EVENT_WRITE, self._giver(process.stdin, given))
        self._watch(process.stdout, selectors.EVENT_READ, self._hearer(process.stdout, self._said, self._most))
        self._watch(process.stderr, selectors.EVENT_READ, self._hearer(process.stderr, self._warned, WARNING_BYTES))
        while self._selector.get_map():
            left = self._deadline - time.monotonic()
            ready = self._selector.select(left) if left > 0 else []
            if not ready:
                raise _too_long()
            for key, _ in ready:
                if not key.data():
                    self._selector.unregister(key.fileobj)
                    key.fileobj.close()  # type: ignore[union-attr]

    def _watch(self, stream: IO[bytes], event: int, act: Callable[[], bool]) -> None:
        os.set_blocking(stream.fileno(), False)
        self._selector.register(stream, event, act)

    @staticmethod
    def _giver(stream: IO[bytes], given: memoryview) -> Callable[[], bool]:
        at = 0

        def give() -> bool:
            nonlocal at
            try:
                at += os.write(stream.fileno(), given[at : at + AT_ONCE])
            except BrokenPipeError:
                return False
            return at < len(given)

        return give

    @staticmethod
    def _hearer(stream: IO[bytes], kept: bytearray, most: int) -> Callable[[], bool]:
        def hear() -> bool:
            got = os.read(stream.fileno(), AT_ONCE)
            kept.extend(got)
            if len(kept) > most:
                raise CannotLook("decode_failed", "The decoder returned more than the header says.")
            return bool(got)

        return hear

    def _end(self, process: subprocess.Popen[Any]) -> None:
        process.kill()
        process.wait()
        self._selector.close()
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream and not stream.closed:
                stream.close()
