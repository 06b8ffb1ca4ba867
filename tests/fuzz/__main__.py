"""python -m tests.fuzz: the long form. Minutes of mutated input for each target, then whole associations on a live
receiver; executions a second are printed, a failing input is kept and its way back told. Exit status 1 when any was.

With --atheris it is guided by coverage instead, one target at a time. atheris is not among the development
requirements (a native build of its own, wanted by nobody else): `.venv/bin/pip install atheris` first.
"""

import argparse
import random
import resource
import sys
import time
import traceback
from pathlib import Path
from types import FunctionType

from tests.fuzz import seeds, whole
from tests.fuzz.targets import CORPUS, TARGETS, Target

COMPARED_ONE_IN = 8
TOLD_EVERY_S = 30.0


def main() -> int:
    arguments, rest = _arguments()
    if arguments.write_corpus:
        write_corpus()
        return 0
    if arguments.input:
        return _again(TARGETS[arguments.target or "pdu"], arguments.input)
    if arguments.atheris:
        return _guided(TARGETS[arguments.target or "pdu"], arguments, rest)
    seed = arguments.seed if arguments.seed is not None else random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")
    names = [arguments.target] if arguments.target else [*TARGETS, "whole"]
    seconds = 60.0 * arguments.minutes / len(names)
    faults = 0
    for name in names:
        if name == "whole":
            faults += whole.long_form(seed, seconds, arguments.engine)
        else:
            faults += _long_form(TARGETS[name], random.Random(f"{seed} {name}"), seconds, arguments.findings)
    return 1 if faults else 0


def _arguments() -> tuple[argparse.Namespace, list[str]]:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0, help="in all, shared by the targets (default 10)")
    parser.add_argument("--target", choices=[*TARGETS, "whole"], help="only this one")
    parser.add_argument("--engine", default="native", help="of the receiver that whole associations are sent to")
    parser.add_argument("--seed", type=int, help="repeats an earlier run, as far as time allows")
    parser.add_argument("--findings", type=Path, default=Path("build/fuzz"), help="where failing inputs are kept")
    parser.add_argument("--input", type=Path, help="run this file alone")
    parser.add_argument("--atheris", action="store_true", help="guided by coverage; further arguments are libFuzzer's")
    parser.add_argument("--write-corpus", action="store_true", help="write the named seeds of tests/fuzz/seeds.py")
    return parser.parse_known_args()


def write_corpus() -> None:
    for target, made in seeds.SEEDS.items():
        (CORPUS / target).mkdir(parents=True, exist_ok=True)
        for name, data in made().items():
            (CORPUS / target / f"{name}.bin").write_bytes(data)


def one(target: Target, data: bytes, compare: bool) -> tuple[bool, str]:
    """(accepted, what broke as text; empty when nothing did)."""
    try:
        accepted = target.run(data)
        if compare:
            target.compare(data)
    except Exception:  # noqa: BLE001  whatever leaves it is the finding
        return False, traceback.format_exc(limit=-4)
    return accepted, ""


def _long_form(target: Target, rng: random.Random, seconds: float, findings: Path) -> int:
    corpus = list(target.corpus.values())
    tally = {"executions": 0, "accepted": 0}
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began, told, broken = time.monotonic(), time.monotonic(), dict[str, bytes]()
    while (now := time.monotonic()) < began + seconds:
        data = target.input(rng, corpus)
        accepted, fault = one(target, data, rng.randrange(COMPARED_ONE_IN) == 0)
        tally["executions"] += 1
        tally["accepted"] += accepted
        if fault and len(data) < len(broken.get(fault[-200:], data + b"x")):
            broken[fault[-200:]] = data
            print(f"{target.name}: {fault}\nkept as {_keep(target, findings, data)}", flush=True)
        if now - told > TOLD_EVERY_S:
            told = now
            print(f"{target.name}: {tally['executions']:,} so far, {len(broken)} faults", flush=True)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    rate = tally["executions"] / (time.monotonic() - began)
    print(
        f"{target.name}: {tally['executions']:,} executions, {rate:,.0f}/s, {tally['accepted']:,} accepted, "
        f"{len(broken)} faults, peak memory +{grown:.1f} MB",
        flush=True,
    )
    return len(broken)


def _keep(target: Target, findings: Path, data: bytes) -> Path:
    findings.mkdir(parents=True, exist_ok=True)
    path = findings / f"{target.name}-{abs(hash(data)):016x}.bin"
    path.write_bytes(data)
    return path


def _again(target: Target, path: Path) -> int:
    _, fault = one(target, path.read_bytes(), compare=True)
    print(fault or "nothing broke")
    return 1 if fault else 0


def _guided(target: Target, arguments: argparse.Namespace, rest: list[str]) -> int:
    import atheris  # type: ignore[import-not-found, unused-ignore]

    findings: Path = arguments.findings / f"atheris-{target.name}"
    findings.mkdir(parents=True, exist_ok=True)
    limits = [f"-max_total_time={int(60 * arguments.minutes)}", "-max_len=8192", f"-artifact_prefix={findings}/"]
    for function in _functions("scp."):
        atheris.instrument_func(function)

    def check(data: bytes) -> None:
        if target.run(data):
            target.compare(data)

    atheris.Setup([sys.argv[0], *limits, *rest, str(findings), str(CORPUS / target.name)], check)
    atheris.Fuzz()
    return 0


def _functions(package: str) -> list[FunctionType]:
    """Those of the package's modules that are loaded, methods included: all else would only be slower."""
    found: list[object] = []
    for name, module in sys.modules.items():
        if name.startswith(package):
            own = [one for one in vars(module).values() if getattr(one, "__module__", "") == name]
            found += own + [method for one in own if isinstance(one, type) for method in vars(one).values()]
    return [one for one in found if isinstance(one, FunctionType)]


if __name__ == "__main__":
    sys.exit(main())
