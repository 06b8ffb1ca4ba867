"""A node without any model package: it receives, and nobody looks."""

from collections.abc import Mapping
from typing import Any, Final

SENTENCE: Final = (
    "no model is installed, so every image is not assessed: put a model package into look.models_dir (is its volume "
    "mounted?), or accept the licence of one that is there (`opentriage models list`), and restart the node"
)


def judged(looking: Mapping[str, Any]) -> list[str]:
    """Reasons to be red. looking: what the analyser of this machine said; {} where none runs."""
    return [SENTENCE] if looking.get("models") == [] else []
