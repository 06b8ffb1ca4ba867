"""docs/safety.md from docs/safety.toml: hazard -> control -> test -> last run.

python -m tools.safety --check   every link leads somewhere, and the page is what the links say (part of `make check`)
python -m tools.safety --write   write the page anew
python -m tools.safety --run     run every test and experiment that is named, keep what came of it, write the page
"""

import argparse
import ast
import json
import platform
import re
import subprocess
import sys
import tempfile
import tomllib
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
SOURCE, RUN, PAGE = (ROOT / "docs" / name for name in ("safety.toml", "safety-run.json", "safety.md"))
SEVERITIES = ("catastrophic", "serious", "minor")  # ISO 14971: death or lasting harm; harm that passes; inconvenience
GOOD = frozenset({"passed", "holds"})
NOT_YET = "not run yet"
NOT_RUN = "NOT RUN"
CAUGHT = frozenset({"caught", "NOT CAUGHT"})  # what is said of a control
EXPERIMENT = re.compile(rf"^(\d+) .*?: (holds|BROKEN|{NOT_RUN}|NOT CAUGHT|caught)\b", re.MULTILINE)
PAGED = ("tests/page", "tests/viewers")  # folders that a plain pytest does not enter


@dataclass(frozen=True)
class Control:
    """code: "path:Name". tests: "path::name". torture: numbers of experiments."""

    text: str
    code: tuple[str, ...] = ()
    tests: tuple[str, ...] = ()
    torture: tuple[int, ...] = ()


@dataclass(frozen=True)
class Hazard:
    """part: the heading under which it stands."""

    id: str
    part: str
    title: str
    harm: str
    severity: str
    residual: str
    controls: tuple[Control, ...]


@dataclass
class LastRun:
    commit: str = ""
    at: str = ""
    machine: str = ""
    tests: dict[str, str] = field(default_factory=dict)
    torture: dict[str, str] = field(default_factory=dict)


def read(source: Path = SOURCE) -> list[Hazard]:
    """Raises TypeError, KeyError for a field that is unknown or missing."""
    hazards = tomllib.loads(source.read_text(encoding="utf-8"))["hazard"]
    return [_hazard(one) for one in hazards]


def _hazard(one: dict[str, Any]) -> Hazard:
    return Hazard(controls=tuple(_control(**control) for control in one.pop("control")), **one)


def _control(text: str, code: list[str], tests: list[str] | None = None, torture: list[int] | None = None) -> Control:
    return Control(text, tuple(code), tuple(tests or ()), tuple(torture or ()))


def last_run(path: Path = RUN) -> LastRun:
    return LastRun(**json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else LastRun()


# --- what leads nowhere ---


def broken(hazards: list[Hazard], run: LastRun, root: Path = ROOT) -> Iterator[str]:
    """A sentence for each link that leads nowhere, each control without proof, each proof that failed last time."""
    ids = [hazard.id for hazard in hazards]
    parts = [part for part, _ in groupby(hazards, lambda hazard: hazard.part)]
    for part in sorted({part for part in parts if parts.count(part) > 1}):
        yield f"the hazards of {part!r} do not stand together"
    for hazard in hazards:
        if ids.count(hazard.id) > 1 or hazard.severity not in SEVERITIES or not hazard.controls:
            yield f"{hazard.id}: two hazards have this id, or its severity is unknown, or nothing controls it"
        for control in hazard.controls:
            for fault in _faults(control, run, root):
                yield f"{hazard.id}: {control.text!r}: {fault}"


def _faults(control: Control, run: LastRun, root: Path) -> Iterator[str]:
    if not control.code or not (control.tests or control.torture):
        yield "names no code, or nothing that proves it"
    for link in control.code:
        path, _, name = link.partition(":")
        if not (root / path).is_file() or (name and name not in _names(root / path)):
            yield f"there is no {link}"
    for link in control.tests:
        path, _, name = link.partition("::")
        if not (root / path).is_file() or name not in _names(root / path):
            yield f"there is no test {link}"
    for number in control.torture:
        if number not in _experiments(root):
            yield f"there is no experiment {number}"
    for link, outcome in _outcomes(control, run):
        if outcome not in GOOD and outcome != NOT_YET:
            yield f"{link}: {outcome} in the last run"


@cache
def _names(path: Path) -> frozenset[str]:
    """What a module defines: functions, classes, Class.method, constants. Nothing for what is no Python."""
    if path.suffix != ".py":
        return frozenset()
    found: set[str] = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        if isinstance(node, ast.ClassDef):
            found |= {f"{node.name}.{one.name}" for one in node.body if isinstance(one, ast.FunctionDef)}
        if isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found |= {target.id for target in targets if isinstance(target, ast.Name)}
    return frozenset(found)


def _experiments(root: Path) -> dict[int, str]:
    """Titles by number; of an experiment in several parts all of them."""
    return {number: "; ".join(titles) for number, titles in _titles(root).items()}


@cache
def _titles(root: Path) -> dict[int, list[str]]:
    """Of each experiment the title of each of its parts."""
    found: dict[int, list[str]] = {}
    for path in sorted((root / "tests" / "torture").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "register":
                number, title = ([*node.args, None, None])[:2]
                if isinstance(number, ast.Constant) and isinstance(number.value, int):
                    found.setdefault(number.value, []).append(
                        str(title.value) if isinstance(title, ast.Constant) else ""
                    )
    return found


# --- the page ---


def page(hazards: list[Hazard], run: LastRun, root: Path = ROOT) -> str:
    """The whole of docs/safety.md."""
    controls = sum(len(hazard.controls) for hazard in hazards)
    parts = [HEAD.format(run=_when(run), hazards=len(hazards), controls=controls, proofs=_overall(hazards, run))]
    parts += ["| | hazard | severity | controls | proofs, last run |", "|---|---|---|---|---|"]
    for part, group in _grouped(hazards):
        parts += [f"| | **{part}** | | | |", *(_line(hazard, run) for hazard in group)]
    for part, group in _grouped(hazards):
        parts += ["", f"## {part}", *(line for hazard in group for line in _section(hazard, run, root))]
    return "\n".join(parts) + "\n"


def _grouped(hazards: list[Hazard]) -> list[tuple[str, list[Hazard]]]:
    return [(part, list(group)) for part, group in groupby(hazards, lambda hazard: hazard.part)]


def _line(hazard: Hazard, run: LastRun) -> str:
    cells = (f"[{hazard.id}](#{hazard.id.lower()})", hazard.title, hazard.severity, len(hazard.controls))
    return f"| {' | '.join(map(str, cells))} | {_overall([hazard], run)} |"


def _section(hazard: Hazard, run: LastRun, root: Path) -> list[str]:
    return [
        "",
        f'### <a id="{hazard.id.lower()}"></a>{hazard.id} {hazard.title}',
        "",
        f"*Harm, {hazard.severity}:* {hazard.harm}",
        "",
        "| control | proven by | last run | code |",
        "|---|---|---|---|",
        *(_row(control, run, root) for control in hazard.controls),
        "",
        f"*What remains:* {hazard.residual}",
    ]


def _row(control: Control, run: LastRun, root: Path) -> str:
    code = "<br>".join(f"[{link}](../{link.partition(':')[0]})" for link in control.code)
    proofs = list(_outcomes(control, run))
    links = "<br>".join("• " + _link(proof, root) + _unless_good(outcome) for proof, outcome in proofs)
    return f"| {control.text} | {links} | {_counted(outcome for _, outcome in proofs)} | {code} |"


def _overall(hazards: list[Hazard], run: LastRun) -> str:
    """Of these hazards. A proof that stands at several controls counts once."""
    return _counted(dict(one for h in hazards for control in h.controls for one in _outcomes(control, run)).values())


def _counted(outcomes: Iterable[str]) -> str:
    counts = Counter("passed" if outcome in GOOD else outcome for outcome in outcomes)
    if len(counts) == 1:
        (outcome,) = counts
        return outcome if outcome == NOT_YET else f"all {counts[outcome]} {outcome}"
    return ", ".join(f"{number} {outcome}" for outcome, number in counts.most_common())


def _unless_good(outcome: str) -> str:
    return "" if outcome in GOOD or outcome == NOT_YET else f" **{outcome}**"


def _link(proof: str, root: Path) -> str:
    path, _, name = proof.partition("::")
    if name:
        return f"[{name.removeprefix('test_').replace('_', ' ')}](../{path})"
    title = _experiments(root).get(int(proof.rpartition(" ")[2]), "")
    return f"[{proof}](torture.md): {title}"


def _outcomes(control: Control, run: LastRun) -> Iterator[tuple[str, str]]:
    for link in control.tests:
        yield link, run.tests.get(link, NOT_YET)
    for number in control.torture:
        yield f"experiment {number}", run.torture.get(str(number), NOT_YET)


def _when(run: LastRun) -> str:
    return f"{run.at}, commit {run.commit}, {run.machine}" if run.at else "never"


HEAD = """# Safety: what could harm somebody, what stands against it, and how we know

Each hazard below has its harm, the controls against it, the tests that prove each control with what came of them in the
last run, and what remains. An *experiment* breaks something on purpose, and is repeated with the product spoiled, which
must then be found out: one that cannot fail proves nothing ([torture.md](torture.md)).

OpenTriage is no cleared medical device; this page is the evidence that a manufacturer or a hospital would begin its own
risk file with (ISO 14971). Severity is that of the worst to be expected. *catastrophic*: death or lasting harm;
*serious*: harm that passes; *minor*: inconvenience. How probable a harm is depends on the site and on what its readers
do: that, and whether what remains is acceptable, is not judged here.

Written by `make safety` from [safety.toml](safety.toml). `make check` fails when a link leads nowhere or when a proof
did not hold in the last run.

**{hazards} hazards, {controls} controls. Last run: {run}. Proofs: {proofs}.**
"""


# --- running ---


def run_all(hazards: list[Hazard]) -> LastRun:
    """Run what is named; prints as it goes."""
    controls = [control for hazard in hazards for control in hazard.controls]
    tests = list(dict.fromkeys(link for control in controls for link in control.tests))
    numbers = sorted({number for control in controls for number in control.torture})
    return LastRun(
        commit=_git("rev-parse", "--short", "HEAD"),
        at=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        machine=f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        tests=_pytest(tests),
        torture=_torture(numbers),
    )


def _pytest(tests: list[str]) -> dict[str, str]:
    groups = [[t for t in tests if t.startswith(folder)] for folder in PAGED]
    groups.append([t for t in tests if not t.startswith(PAGED)])
    outcomes: dict[str, str] = {}
    for group in filter(None, groups):
        with tempfile.TemporaryDirectory() as folder:
            report = Path(folder) / "report.xml"
            command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--basetemp", f"{folder}/made"]
            subprocess.run([*command, f"--junit-xml={report}", *group], cwd=ROOT, check=False)
            outcomes |= _junit(report, group)
    return outcomes


def _junit(report: Path, tests: list[str]) -> dict[str, str]:
    """Of a test that runs with several parameters the worst outcome."""
    found: dict[str, str] = {}
    cases = ElementTree.parse(report).iter("testcase") if report.is_file() else ()  # noqa: S314  pytest wrote it just now
    for case in cases:
        path = case.attrib["classname"].replace(".", "/") + ".py"
        link = f"{path}::{case.attrib['name'].partition('[')[0]}"
        bad = [kind for kind in ("failure", "error", "skipped") if case.find(kind) is not None]
        outcome = {"failure": "failed", "error": "failed", "skipped": "skipped"}[bad[0]] if bad else "passed"
        found[link] = outcome if found.get(link, "passed") == "passed" else found[link]
    return {link: found.get(link, "did not run") for link in tests}


def _torture(numbers: list[int]) -> dict[str, str]:
    if not numbers:
        return {}
    command = [sys.executable, "-m", "tests.torture", "--suite", "all", "--experiments", ",".join(map(str, numbers))]
    said = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True).stdout
    return verdicts_in(said, numbers, ROOT)


def verdicts_in(said: str, numbers: Iterable[int], root: Path) -> dict[str, str]:
    """What came of each experiment, from what the torture command printed. It holds when every part of it held and
    every control was caught; a part that said nothing, or that could not run, is no part that held."""
    found: dict[str, list[str]] = {}
    for number, verdict in EXPERIMENT.findall(said):
        found.setdefault(number, []).append(verdict)
    return {str(n): _verdict(found.get(str(n), []), len(_titles(root).get(n, []))) for n in numbers}


def _verdict(verdicts: list[str], parts: int) -> str:
    if {"BROKEN", "NOT CAUGHT"} & set(verdicts):
        return "failed"
    held = sum(verdict not in CAUGHT for verdict in verdicts)
    return "did not run" if NOT_RUN in verdicts or held < max(parts, 1) else "holds"


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=ROOT, check=True, capture_output=True, text=True).stdout.strip()


def main(arguments: list[str] | None = None) -> int:
    """0 when all is well, 1 when a link is broken, a proof failed, or the page is not what the links say."""
    parser = argparse.ArgumentParser(prog="python -m tools.safety", description=__doc__.partition("\n")[0])
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--check", action="store_true", help="say what is wrong, change nothing")
    what.add_argument("--write", action="store_true", help="write docs/safety.md")
    what.add_argument("--run", action="store_true", help="run what is named, then write docs/safety.md")
    chosen = parser.parse_args(arguments)
    hazards = read()
    run = run_all(hazards) if chosen.run else last_run()
    if chosen.run:
        RUN.write_text(json.dumps(vars(run), indent=1, sort_keys=True) + "\n", encoding="utf-8")
    if not chosen.check:
        PAGE.write_text(page(hazards, run), encoding="utf-8")
    wrong = list(broken(hazards, run))
    if chosen.check and PAGE.read_text(encoding="utf-8") != page(hazards, run):
        wrong.append("docs/safety.md is not what docs/safety.toml says: run `python -m tools.safety --write`")
    for sentence in wrong:
        print(sentence, file=sys.stderr)  # noqa: T201
    return int(bool(wrong))


if __name__ == "__main__":
    raise SystemExit(main())
