"""ONNX Runtime's wheels tell their maker that they are used, from the import on, unless they are told not to. This node
tells nobody."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.realdata import ROOT


@pytest.mark.parametrize("module", ["inference.engines.onnx_engine", "validation.run"])
def test_importing_the_models_runtime_leaves_no_identity_behind(tmp_path: Path, module: str) -> None:
    kept = {key: value for key, value in os.environ.items() if key not in ("ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME")}
    script = f"import os, {module}; assert os.environ['ORT_DISABLE_TELEMETRY'] == '1'"
    environment = kept | {"HOME": str(tmp_path), "MPLCONFIGDIR": str(tmp_path / "matplotlib")}
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, env=environment, check=True, timeout=120)
    assert [path for path in tmp_path.rglob("*") if "icrosoft" in str(path)] == []
