"""The bill of materials of what a site runs: CycloneDX 1.6, Python packages with hashes, and our model packages.

    python -m tools.sbom --python .venv-sbom/bin/python --requirements requirements/cpu.txt --output dist/bom.cdx.json

The environment is read by cyclonedx-bom; what it cannot know is added here: the hashes that the lock file pins, and the
model packages, which are as much a part of what decides as any library.
"""

import argparse
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cyclonedx.schema import SchemaVersion
from cyclonedx.spdx import is_supported_id
from cyclonedx.validation.json import JsonStrictValidator

from inference.manifest import Manifest

ROOT = Path(__file__).parents[1]
PINNED = re.compile(r"^([A-Za-z0-9_.-]+)==(\S+)")
CLASSIFIERS = {
    "License :: OSI Approved :: Apache Software License": "Apache-2.0",
    "License :: OSI Approved :: MIT License": "MIT",
}
HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")


def environment(python: Path) -> dict[str, Any]:
    """What is installed beside an interpreter, as a CycloneDX document."""
    command = ["environment", "--pyproject", "pyproject.toml", "--mc-type", "application", "--output-reproducible"]
    command += ["--spec-version", "1.6", "--output-format", "JSON", str(python.absolute())]
    done = subprocess.run(
        [sys.executable, "-m", "cyclonedx_py", *command], cwd=ROOT, check=True, capture_output=True, text=True
    )
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def pins(requirements: str) -> dict[str, tuple[str, list[str]]]:
    """Name (as PEP 503 normalises it) -> version and the SHA-256 of every file that the lock allows."""
    found: dict[str, tuple[str, list[str]]] = {}
    name = ""
    for line in requirements.splitlines():
        if match := PINNED.match(line):
            name = _normal(match[1])
            found[name] = (match[2], [])
        if name:
            found[name][1].extend(HASH.findall(line))
    return found


def with_hashes(document: dict[str, Any], pinned: dict[str, tuple[str, list[str]]]) -> dict[str, Any]:
    """Each library with the files that may stand for it. Raises ValueError for one that the lock does not name."""
    for component in document.get("components", []):
        name = _normal(component["name"])
        if name not in pinned or pinned[name][0] != component["version"]:
            raise ValueError(f"{component['name']} {component['version']} is installed, and the lock does not name it")
        url = f"https://pypi.org/project/{name}/{component['version']}/"
        files = [{"alg": "SHA-256", "content": one} for one in sorted(pinned[name][1])]
        component.setdefault("externalReferences", []).append({"type": "distribution", "url": url, "hashes": files})
    return document


def with_models(document: dict[str, Any], folder: Path) -> dict[str, Any]:
    document.setdefault("components", []).extend(_models(folder))
    return document


def _models(folder: Path) -> Iterator[dict[str, Any]]:
    for path in sorted(folder.glob("*/*/manifest.json")):
        manifest = Manifest.model_validate_json(path.read_bytes())
        yield {
            "type": "machine-learning-model",
            "bom-ref": f"model:{manifest.name}@{manifest.version}",
            "name": manifest.name,
            "version": manifest.version,
            "description": manifest.intended_use,
            "hashes": [{"alg": "SHA-256", "content": manifest.files["model.onnx"]}],
            "licenses": [_licence(manifest.licence.weights)],
        }


def with_known_licences(document: dict[str, Any]) -> dict[str, Any]:
    """Classifiers that say which licence it is, as the SPDX id that scanners compare; the others as they are."""
    for component in document.get("components", []):
        for entry in component.get("licenses", []):
            named = entry.get("license", {}).get("name", "")
            if named in CLASSIFIERS:
                entry["license"] = {**entry["license"], **_licence(CLASSIFIERS[named])["license"]}
                del entry["license"]["name"]
    return document


def _licence(name: str) -> dict[str, Any]:
    return {"license": {"id" if is_supported_id(name) else "name": name}}


def faults(document: dict[str, Any]) -> str:
    """Why the document is no valid CycloneDX 1.6; empty when it is."""
    error = JsonStrictValidator(SchemaVersion.V1_6).validate_str(json.dumps(document))
    return str(error) if error else ""


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def main(arguments: list[str] | None = None) -> int:
    """0, or 1 when the document would not be valid."""
    parser = argparse.ArgumentParser(prog="python -m tools.sbom", description=__doc__.partition("\n")[0])
    parser.add_argument("--python", type=Path, required=True, help="the interpreter of the environment to describe")
    parser.add_argument("--requirements", type=Path, required=True, help="the lock file that it was made from")
    parser.add_argument("--output", type=Path, required=True)
    chosen = parser.parse_args(arguments)
    document = with_hashes(environment(chosen.python), pins(chosen.requirements.read_text(encoding="utf-8")))
    document = with_known_licences(with_models(document, ROOT / "models"))
    if wrong := faults(document):
        print(wrong, file=sys.stderr)  # noqa: T201
        return 1
    chosen.output.parent.mkdir(parents=True, exist_ok=True)
    chosen.output.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    print(f"{chosen.output}: {len(document['components'])} components")  # noqa: T201
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
