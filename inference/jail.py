"""What is left to the process that decodes: to read the program and the images, and to answer on its pipe.

The role that starts it has given up most already (node/running/confine.py); started by hand, as by `opentriage
analyse`, nobody has. What the kernel cannot hold back stays as it was: the role's log says so.
"""

import os
import resource
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from inference import landlock, seccomp
from inference.landlock import READ, RUN, Right

_PROGRAMS: Final = ("/usr", "/bin", "/lib", "/lib32", "/lib64", "/opt", "/nix/store")
_SYSTEM: Final = ("/proc", "/sys", "/etc/ld.so.cache", "/etc/ld.so.preload", "/etc/localtime", "/etc/alternatives")


def close(below: Sequence[str], program: str = "") -> None:
    """No socket of any kind, no signal to others, no core file, nothing written, nothing started but `program`; where
    `below` names folders, nothing read beyond them and the program. Raises OSError."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if not sys.platform.startswith("linux"):
        return
    landlock.no_new_privileges()
    landlock.no_memory_image()
    files: dict[Path, Right] = {Path("/"): READ}
    if below:
        code = [Path(entry) for entry in {*_PROGRAMS, sys.prefix, sys.base_prefix, *sys.path} if entry]
        files = dict.fromkeys([*code, *map(Path, (*_SYSTEM, *below))], READ)
    files |= {Path("/dev/null"): READ | Right.WRITE_FILE}
    if program:  # and what loads it, which the kernel opens as a program too
        files |= dict.fromkeys([*_to_start(Path(program)), *Path("/").glob("lib*/ld-*.so*")], RUN)
    landlock.restrict(files, listen=(), call=())
    seccomp.restrict(())


def _to_start(program: Path) -> list[Path]:
    """The program, and where it is a script what interprets it."""
    with program.open("rb") as file:
        first = file.read(256)
    said = first[2:].split(b"\n")[0].split()[:1] if first.startswith(b"#!") else []
    return [program.resolve(), *(Path(os.fsdecode(name)).resolve() for name in said)]
