"""What one role of this machine lets the others know: small JSON files, replaced in one step, hints and not state."""

import json
import os
from pathlib import Path
from typing import Any

from config import Settings
from node.wiring import run_dir


def publish(settings: Settings, role: str, **facts: Any) -> None:
    """Say that this process is `role`, with `facts` (address, provider, degraded, ...)."""
    path = _path(settings, role)
    part = path.with_suffix(f".{os.getpid()}")
    part.write_text(json.dumps({"pid": os.getpid(), **facts}), encoding="utf-8")
    part.replace(path)


def read(settings: Settings, role: str) -> dict[str, Any]:
    """What `role` last said, or {} when it never did or its process is gone."""
    facts = _said(settings, role)
    return facts if _alive(int(facts.get("pid", 0))) else {}


def last_words(settings: Settings, role: str, pid: int) -> str:
    """Why the process `pid`, now gone, could not be `role`; empty when it did not say."""
    facts = _said(settings, _end_of(role))
    return str(facts.get("why", "")) if facts.get("pid") == pid else ""


def say_why(settings: Settings, role: str, why: str) -> None:
    """Leave word, before this process ends, why it cannot be `role`."""
    publish(settings, _end_of(role), why=why)


def _end_of(role: str) -> str:
    return f"{role}-ended"


def _said(settings: Settings, role: str) -> dict[str, Any]:
    try:
        facts: dict[str, Any] = json.loads(_path(settings, role).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return facts


def clear(settings: Settings) -> None:
    """Forget what an earlier run said."""
    for path in run_dir(settings).glob("*.json"):
        path.unlink(missing_ok=True)


def _path(settings: Settings, role: str) -> Path:
    return run_dir(settings) / f"{role}.json"


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return pid > 0
