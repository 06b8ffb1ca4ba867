"""schemathesis holds the running interface against its own OpenAPI document: every status, media type, body and header
that it answers is documented, what is wrong is refused, what is right is not, and nothing is had without a token.

Longer, by hand: this test with OPENTRIAGE_SCHEMATHESIS="--phases examples,coverage,fuzzing --max-examples 500".
"""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

from ledger.access import Role
from tests.support import ledgers
from tests.support.realdata import ROOT
from tests.support.serving import serving, settings_in

# A schema says "a file", and not that it must be an image which says what it shows: 422 is right for most files.
CONFIG = """
[parameters]
"path.study_uid" = "{study}"

[[operations]]
include-path = "/analyze"
checks.positive_data_acceptance.enabled = false
"""
SHORT = "--phases examples,coverage"


def test_the_interface_is_what_its_document_says(tmp_path: Path) -> None:
    with serving(settings_in(tmp_path), looks=True) as served:
        study = ledgers.admit(served.ledger).study_instance_uid
        (tmp_path / "schemathesis.toml").write_text(CONFIG.format(study=study), encoding="utf-8")
        wanted = shlex.split(os.environ.get("OPENTRIAGE_SCHEMATHESIS", SHORT))
        ran = subprocess.run(
            [Path(sys.executable).with_name("schemathesis"), "run", f"{served.url}/openapi.json",
             "--header", f"Authorization: Bearer {served.tokens[Role.ADMIN]}", "--seed", "20261121",
             "--generation-database", "none", "--no-color", "--suppress-health-check", "all",
             "--continue-on-failure", "--workers", "2", *wanted],
            cwd=tmp_path, capture_output=True, text=True, check=False,
            env={**os.environ, "SCHEMATHESIS_HOOKS": "tests.support.schemathesis_hooks", "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
    assert ran.returncode == 0, ran.stdout[-12_000:] + ran.stderr[-2_000:]
    tested = re.search(r"Tested: (\d+)", ran.stdout)
    assert tested is not None
    assert int(tested[1]) == 8, "an operation was left out"
