"""What is shipped for running it in a hospital fits the program: units, image, stack."""

import json
import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from config import Settings, load_settings
from node.cli import COMMANDS
from node.roles import ROLES

ROOT = Path(__file__).parents[2]
SYSTEMD, COMPOSE = ROOT / "deploy" / "systemd", ROOT / "deploy" / "compose"
UNITS = ("opentriage.service", "opentriage@.service", "opentriage.socket")
PROGRAM = "/opt/opentriage/.venv/bin/opentriage"
MEASURED_WITH = 252  # the version of systemd
EXPOSURE_AT_MOST = 15  # tenths; measured 1.4
EXPOSURE_AT_MOST_LATER = 25  # a later systemd asks for more
OFFLINE_SINCE = 250  # systemd-analyze looks at a unit that is not loaded
# What the roles shut themselves in with: a unit that forbids it would leave them open.
NEEDED_CALLS = {"landlock_create_ruleset", "landlock_add_rule", "landlock_restrict_self", "seccomp", "prctl"}


def lines(unit: str, key: str) -> list[str]:
    """The values of a key, in their order."""
    text = (SYSTEMD / unit).read_text()
    return re.findall(rf"(?m)^{key}=(.*)$", text)


def analyse(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("systemd-analyze is not installed (Debian package systemd)")
    environment = {**os.environ, "LC_ALL": "C", "SYSTEMD_COLORS": "0", "SYSTEMD_PAGER": ""}
    return subprocess.run(
        [program, *arguments], capture_output=True, text=True, timeout=120, check=False, env=environment
    )


def installed(folder: Path) -> list[Path]:
    """The units as on a machine where the program is."""
    for unit in UNITS:
        (folder / unit).write_text((SYSTEMD / unit).read_text().replace(PROGRAM, "/bin/true"))
    return [folder / unit for unit in UNITS]


def test_systemd_understands_every_line_of_the_units(tmp_path: Path) -> None:
    units = [str(unit).replace("@.", "@receive.") for unit in installed(tmp_path)]
    done = analyse("verify", "--man=no", *units)
    said = [line for line in done.stderr.splitlines() if "opentriage" in line]  # and not of this machine's own units
    assert [line for line in said if not re.search(r"deprecated|obsolete|removed", line)] == []  # by a later systemd
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("unit", ["opentriage.service", "opentriage@.service"])
def test_a_unit_exposes_little(tmp_path: Path, unit: str) -> None:
    installed(tmp_path)
    found = re.search(r"\d+", analyse("--version").stdout)
    assert found is not None
    if (version := int(found[0])) < OFFLINE_SINCE:
        pytest.skip(f"systemd-analyze {version} judges no unit that is not loaded")
    at_most = EXPOSURE_AT_MOST if version <= MEASURED_WITH else EXPOSURE_AT_MOST_LATER
    done = analyse("security", "--offline=true", f"--threshold={at_most}", tmp_path / unit)
    assert done.returncode == 0, done.stdout.splitlines()[-1:]


def test_a_role_on_its_own_is_shut_in_as_the_node_is() -> None:
    start = "# Who it is, and what is its own."
    node, role = ((SYSTEMD / unit).read_text().partition(start)[2] for unit in UNITS[:2])
    assert node.partition("[Install]")[0] == role.partition("[Install]")[0] != ""


def test_the_unit_lets_the_roles_shut_themselves_in() -> None:
    filters = lines("opentriage.service", "SystemCallFilter")
    allowed = {call for line in filters if not line.startswith("~") for call in line.split()}
    assert allowed >= NEEDED_CALLS
    assert filters.index(next(line for line in filters if line.startswith("~"))) < len(filters) - 1  # allowed after it


def test_nothing_that_is_shipped_calls_anybody_home() -> None:
    for unit in UNITS[:2]:
        assert any("ORT_DISABLE_TELEMETRY=1" in line for line in lines(unit, "Environment"))
    assert "ORT_DISABLE_TELEMETRY=1" in (ROOT / "deploy" / "container" / "Containerfile").read_text()


def test_the_unit_gives_the_node_the_time_it_asks_for() -> None:
    [stop] = lines("opentriage.service", "TimeoutStopSec")
    assert int(stop.removesuffix("s")) > Settings().node.stop_grace_s + 5
    [port] = lines("opentriage.socket", "ListenStream")
    assert port == f"{Settings().receive.host}:{Settings().receive.port}"


def service(name: str) -> dict[str, Any]:
    stack: dict[str, Any] = yaml.safe_load((COMPOSE / "compose.yaml").read_text())
    found: dict[str, Any] = stack["services"][name]
    return found


def test_every_service_of_the_stack_is_shut_in() -> None:
    stack = yaml.safe_load((COMPOSE / "compose.yaml").read_text())
    assert set(stack["services"]) == {"node", "orthanc", "viewer"}
    for name, one in stack["services"].items():
        assert one["read_only"] is True, name
        assert one["cap_drop"] == ["ALL"], name
        assert one["security_opt"] == ["no-new-privileges:true"], name
        assert one["healthcheck"]["test"][0] == "CMD", name  # no shell
        assert all(port.startswith("127.0.0.1:") for port in one["ports"]), name
        named = [volume.split(":") for volume in one["volumes"]]
        assert all(source.startswith("./") or source in stack["volumes"] for source, *_ in named), name
        assert all(parts[-1] == "ro" for parts in named if parts[0].startswith("./")), name
        assert all((COMPOSE / source).is_file() for source, *_ in named if source.startswith("./")), name


def test_the_stack_s_node_has_settings_that_exist_and_reach_its_neighbours() -> None:
    settings = load_settings(COMPOSE / "site.toml")  # an unknown setting is an error
    orthanc = json.loads((COMPOSE / "orthanc.json").read_text())
    [destination] = settings.destinations
    assert (destination.host, destination.ae_title) == ("orthanc", orthanc["DicomAet"])
    assert destination.port == orthanc["DicomPort"]
    ours = orthanc["DicomModalities"]["opentriage"]
    assert (ours["Host"], ours["AET"], ours["Port"]) == ("node", settings.receive.ae_title, settings.receive.port)
    assert orthanc["DicomAet"] in settings.receive.allowed_calling_ae_titles
    assert {port.rpartition(":")[2] for port in service("node")["ports"]} == {
        str(settings.receive.port),
        str(settings.web.port),
    }
    assert f"{settings.node.state_dir}" in {volume.split(":")[1] for volume in service("node")["volumes"]}
    assert int(service("node")["stop_grace_period"].removesuffix("s")) > settings.node.stop_grace_s + 5


def test_what_the_stack_and_the_image_ask_the_program_exists() -> None:
    image = (ROOT / "deploy" / "container" / "Containerfile").read_text()
    assert service("node")["healthcheck"]["test"][1:] == ["opentriage", "health"]
    assert 'CMD ["opentriage", "health"]' in image
    assert {"health", "serve"} <= set(COMMANDS)
    assert re.findall(r"(?m)^USER (\S+)$", image) == [service("node")["user"]] == ["10001:10001"]


def test_a_container_is_told_the_zone_of_its_times() -> None:
    assert set(service("node")["environment"]) == {"TZ"}
    image = (ROOT / "deploy" / "container" / "Containerfile").read_text()
    assert re.search(r"(?m)^RUN apt-get.*\n.*\btzdata\b", image.partition("AS build")[2].partition("FROM")[2])
    assert "-e TZ=" in (ROOT / "docs" / "deploy.md").read_text()


def test_the_image_holds_every_package_and_the_models() -> None:
    image = (ROOT / "deploy" / "container" / "Containerfile").read_text()
    ignored = (ROOT / ".containerignore").read_text().splitlines()
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    for folder in {name.partition(".")[0] for name in packages} | {"models", "requirements"}:
        assert f"COPY {folder}/ {folder}/" in image
        assert f"!{folder}" in ignored


def test_the_roles_that_the_documents_start_exist() -> None:
    said = {
        role for path in (ROOT / "docs").rglob("*.md") for role in re.findall(r"opentriage@(\w+)", path.read_text())
    }
    assert said <= set(ROLES)
