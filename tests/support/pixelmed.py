"""PixelMed's DicomSRValidator: the one checker of templates, and the one that IHE's Gazelle uses."""

import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

from tests.support.peers import absent, need

JARS = Path("/usr/share/java")
_FLAGS = ("-Xss64m", *(f"-Djdk.xml.xpath{limit}Limit=0" for limit in ("TotalOp", "ExprGrp", "ExprOp")))
_SOURCE = Path(__file__).with_name("SrValidator.java")


def validated(files: Sequence[Path]) -> dict[Path, str]:
    """What it says of each structured report, all in one virtual machine."""
    java = need("java")
    need("javac")  # runs the few lines around it from their source
    if not (JARS / "pixelmed.jar").is_file():
        absent("PixelMed", "libpixelmed-java")
    command = [java, *_FLAGS, "-XX:TieredStopAtLevel=1", "-cp", f"{JARS}/*", _SOURCE, *files]
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    _, *parts = re.split(r"^== (.*)$", done.stdout, flags=re.MULTILINE)
    return {Path(name): said for name, said in zip(parts[::2], parts[1::2], strict=True)}


def errors(said: str) -> list[str]:
    """Its lines of errors; asserts that it knew the object and its root template, and came to an end."""
    assert "Root Template Validation Complete" in said, said
    assert "IOD validation complete" in said, said
    return [line for line in said.splitlines() if "Error" in line]
