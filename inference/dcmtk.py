"""DCMTK's dcmdjpeg, where this machine has it: it decodes 12-bit JPEG Extended, which no decoder of ours can.

Looked for by absolute path where packages put it, never along PATH; asked for its version, and tried on a known image,
before it is given a stranger's. It runs under the decode child alone (inference/jpeg_extended.py).
"""

import os
import re
import stat
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from config.settings import LookSettings
from inference.errors import CannotLook
from inference.jpeg_extended import ENVIRONMENT, Limits, decode_frame

NAME = "dcmdjpeg"
FOLDERS = (Path("/usr/bin"), Path("/usr/local/bin"))
VERSION = re.compile(rb"^\$dcmtk: dcmdjpeg v([0-9.]{1,12}[^ ]{0,4}) ")
OTHERS_MAY_WRITE = stat.S_IWGRP | stat.S_IWOTH
TRIED_S = 10.0
KNOWN_VALUES = np.array([[0, 3000]], np.uint16).repeat(8, axis=1).repeat(8, axis=0)  # (8, 16): a block of each
KNOWN_FRAME = bytes.fromhex(
    "ffd8ffe000104a46494600010100000100010000ffdb0043000101010101010101010101010101010101010101010101010101010101010101"
    "0101010101010101010101010101010101010101010101010101010101010101ffc1000b0c0008001001011100ffc400140001000000000000"
    "0000000000000000000fffc40014100100000000000000000000000000000000ffda0008010100003f003fff002ee03fffd9"
)


@dataclass(frozen=True)
class Dcmtk:
    """path: of the program that may be used, None where there is none. sentence: for logs and whoever asks what is
    there; where there is none, why."""

    path: Path | None
    version: str
    sentence: str


def find_dcmtk(look: LookSettings) -> Dcmtk:
    """What `look.dcmdjpeg` leads to. Runs it twice, some 40 ms; never raises."""
    if look.dcmdjpeg == "off":
        return _absent("look.dcmdjpeg is off")
    if look.dcmdjpeg != "auto":
        return _examined(Path(look.dcmdjpeg))
    found = [folder / NAME for folder in FOLDERS if (folder / NAME).is_file()]
    places = " or ".join(map(str, FOLDERS))
    return _examined(found[0]) if found else _absent(f"there is no {NAME} in {places} (Debian package dcmtk)")


def _absent(why: str) -> Dcmtk:
    return Dcmtk(None, "", f"12-bit JPEG Extended cannot be decoded: {why}")


def _examined(path: Path) -> Dcmtk:
    try:
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode) or not os.access(path, os.X_OK):
            return _absent(f"{path} is not a program")
        if mode & OTHERS_MAY_WRITE:
            return _absent(f"{path} may be changed by others than its owner")
        version = _version(path)
    except (OSError, subprocess.SubprocessError) as error:
        return _absent(f"{path} cannot be run ({type(error).__name__})")
    if not version:
        return _absent(f"{path} is not DCMTK's {NAME}")
    if not _knows_the_known(path):
        return _absent(f"{path} {version} does not decode a known image")
    return Dcmtk(path, version, f"12-bit JPEG Extended is decoded by {path}, DCMTK {version}")


def _version(path: Path) -> str:
    said = subprocess.run(
        [path, "--version"], stdin=subprocess.DEVNULL, capture_output=True, env=ENVIRONMENT, timeout=TRIED_S, check=True
    )
    match = VERSION.match(said.stdout[:200])
    return match[1].decode("ascii", "replace") if match else ""


def _knows_the_known(path: Path) -> bool:
    try:
        got = decode_frame(KNOWN_FRAME, 8, 16, 12, Limits(path, TRIED_S, TRIED_S))
    except CannotLook:
        return False
    return np.array_equal(got, KNOWN_VALUES)
