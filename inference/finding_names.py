"""Names of findings in the settings that no installed model finds: a slip of one letter, and a threshold is ignored."""

import difflib
from collections.abc import Iterable, Iterator
from typing import Final

from config.settings import DecideSettings, RecommendSettings
from inference.manifest import Manifest

SHIPPED: Final = frozenset((*DecideSettings().critical_findings, *RecommendSettings().present))


def unknown_findings(
    decide: DecideSettings, recommend: RecommendSettings, manifests: Iterable[Manifest]
) -> Iterator[str]:
    """A sentence for each, with the nearest that there is; none for a name that stands in the settings as shipped.
    manifests: of all installed packages; without any nobody knows what would be found."""
    found = sorted({label.label for manifest in manifests for label in manifest.labels})
    if not found:
        return
    named = {
        "decide.critical_findings": decide.critical_findings,
        "decide.thresholds": tuple(decide.thresholds),
        "recommend.present": tuple(recommend.present),
    }
    for setting, names in named.items():
        for name in dict.fromkeys(names):
            if name not in found and (name not in SHIPPED or setting == "decide.thresholds"):
                near = _nearest(name, found)
                yield f"{setting}: no installed model finds {name!r}{near} (they find: {', '.join(found)})"
    may_be_high = decide.present_priority == "HIGH" or not {*found}.isdisjoint(decide.critical_findings)
    if not may_be_high and decide.critical_priority == "HIGH":
        yield "decide.critical_findings: no installed model finds any of them, so no study becomes HIGH"


def _nearest(name: str, found: Iterable[str]) -> str:
    near = [] if name in SHIPPED else difflib.get_close_matches(name, sorted({*found, *SHIPPED}), n=1)
    return f"; did you mean {near[0]!r}?" if near else ""
