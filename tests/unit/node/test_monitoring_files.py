"""The dashboard and the alert rules ask for nothing that the node does not export, and every alert says what to do."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import REGISTRY, CollectorRegistry

import inference.metrics  # noqa: F401
import node.watching.promised  # noqa: F401  its histogram is registered when it is imported
import scp.metrics  # noqa: F401
from config import Settings
from node import notices
from node.chores.seal import NOTICE as SEALER
from node.watching.metrics import LedgerCollector
from node.wiring import open_ledger
from scp.network.policy import Refusal
from scp.network.tls import Reason
from tests.support.peers import need
from tests.support.realdata import ROOT

RULES = ROOT / "deploy" / "prometheus" / "opentriage.rules.yml"
RULE_TESTS = RULES.with_name("opentriage.test.yml")
DASHBOARD = ROOT / "deploy" / "grafana" / "opentriage.json"
RUNBOOKS = {
    "pacs-down",
    "disk-full",
    "gpu-lost",
    "wrong-result-sent",
    "certificate-expired",
    "heartbeat-missing",
    "ledger-unavailable",
    "instances-drift",
    "drift",
}
_SUFFIXES = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count"), "gauge": ("",)}


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str]]:
    """Every name that a node's /metrics has, with its labels where they are known."""
    folder = tmp_path_factory.mktemp("exported")
    settings = Settings.model_validate({"node": {"state_dir": folder}, "audit": {"repository_host": "127.0.0.1"}})
    ledger = open_ledger(settings)
    notices.publish(settings, SEALER, exported=1, exported_at=1.0)
    notices.publish(settings, "analyse", models=["one 1.0.0"])
    registry = CollectorRegistry()
    registry.register(LedgerCollector(settings, ledger))
    found: dict[str, set[str]] = {}
    for metric in [*registry.collect(), *REGISTRY.collect()]:
        if metric.name.startswith("opentriage"):
            labels = set(getattr(metric, "_labelnames", ())) | {name for s in metric.samples for name in s.labels}
            found |= {f"{metric.name}{suffix}": labels for suffix in _SUFFIXES[metric.type]}
    ledger.close()
    return found


def rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


def recorded() -> set[str]:
    return {rule["record"] for rule in rules() if "record" in rule}


def panels() -> Iterator[dict[str, Any]]:
    yield from (panel for panel in json.loads(DASHBOARD.read_text(encoding="utf-8"))["panels"] if "targets" in panel)


def expressions() -> list[str]:
    asked = [target["expr"] for panel in panels() for target in panel["targets"]]
    return [*(str(rule["expr"]) for rule in rules()), *asked]


def names_in(expression: str) -> set[str]:
    return set(re.findall(r"\bopentriage[a-zA-Z0-9_:]*", re.sub(r'"[^"]*"', '""', expression)))


def test_every_name_that_a_rule_or_a_panel_asks_for_is_exported_or_recorded(exported: dict[str, set[str]]) -> None:
    asked = {name for expression in expressions() for name in names_in(expression)}
    assert len(asked) > 30
    assert asked - set(exported) - recorded() == set()


def test_every_label_by_which_one_metric_is_chosen_is_one_of_its_own(exported: dict[str, set[str]]) -> None:
    chosen = re.compile(r"\b(opentriage[a-zA-Z0-9_]*)\{([^}]*)\}")
    for expression in expressions():
        for name, matchers in chosen.findall(expression):
            labels = set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", matchers)) - {"job", "instance"}
            known = exported.get(name, {"kind", "priority"})
            assert not known or labels <= known, f"{name} has no {labels - known}"


BORN = """
import inference.metrics, node.watching.promised, scp.receiver
from prometheus_client import REGISTRY
for metric in REGISTRY.collect():
    for one in metric.samples:
        print(one.name, *[f'{name}="{value}"' for name, value in one.labels.items()], one.value)
"""


@pytest.fixture(scope="module")
def born(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str, set[str], float]]:
    """What new processes and a new ledger show before anything happened: name, labels as name="value", value."""
    done = subprocess.run([sys.executable, "-c", BORN], capture_output=True, text=True, timeout=120, check=True)
    counted = [line.split() for line in done.stdout.splitlines() if line.startswith("opentriage")]
    settings = Settings.model_validate({"node": {"state_dir": tmp_path_factory.mktemp("born")}})
    ledger = open_ledger(settings)
    known = [one for metric in LedgerCollector(settings, ledger).collect() for one in metric.samples]
    ledger.close()
    told = [(one.name, {f'{name}="{value}"' for name, value in one.labels.items()}, one.value) for one in known]
    return [*((name, set(labels), float(value)) for name, *labels, value in counted), *told]


def test_what_an_alert_counts_is_there_at_nought_before_the_first_one(
    born: list[tuple[str, set[str], float]],
) -> None:
    risen = re.compile(r"(?:increase|rate)\((opentriage\w+_total)(?:\{([^}]*)\})?\[")
    asked = {found for rule in rules() for found in risen.findall(str(rule["expr"]))}
    assert len(asked) >= 5
    for name, matchers in asked:
        chosen = {matcher.strip() for matcher in matchers.split(",") if matcher}
        values = [value for one, labels, value in born if one == name and chosen <= labels]
        assert values, f"{name}{matchers} is born with its first: no increase is ever seen of that"
        assert set(values) == {0.0}


def test_every_reason_for_which_a_caller_is_refused_is_there_at_nought(born: list[tuple[str, set[str], float]]) -> None:
    there = {(name, label) for name, labels, _ in born for label in labels}
    for status in (0xA700, 0xA900, 0xC000, 0x0110, 0x0117, 0x0122):
        assert ("opentriage_receive_instances_total", f'status="0x{status:04X}"') in there
    for refusal in Refusal:
        assert ("opentriage_receive_associations_rejected_total", f'reason="{refusal.name.lower()}"') in there
    for reason in Reason:
        assert ("opentriage_receive_tls_failed_total", f'reason="{reason}"') in there


def test_every_alert_says_what_to_do_and_where_its_runbook_is() -> None:
    alerts = [rule for rule in rules() if "alert" in rule]
    assert len({rule["alert"] for rule in alerts}) == len(alerts)
    for rule in alerts:
        assert rule["labels"]["severity"] in ("page", "ticket"), rule["alert"]
        said = rule["annotations"]
        assert said["summary"], rule["alert"]
        assert said["action"], rule["alert"]
        place = Path(said["runbook_url"])
        assert (str(place.parent), place.stem in RUNBOOKS) == ("docs/runbooks", True), rule["alert"]
        assert (ROOT / place).is_file(), rule["alert"]


def test_prometheus_takes_the_rules_and_the_dashboards_questions(tmp_path: Path) -> None:
    asked = [target["expr"].replace("$__rate_interval", "5m") for panel in panels() for target in panel["targets"]]
    group = {"name": "dashboard", "rules": [{"record": f"asked:{n}", "expr": expr} for n, expr in enumerate(asked)]}
    questions = tmp_path / "dashboard.yml"
    questions.write_text(yaml.safe_dump({"groups": [group]}), encoding="utf-8")
    promtool("check", "rules", str(RULES), str(questions))


def test_each_alert_that_wakes_somebody_fires_when_it_should_and_not_before() -> None:
    promtool("test", "rules", str(RULE_TESTS))


def test_every_alert_that_wakes_somebody_is_seen_firing_and_seen_silent() -> None:
    cases = yaml.safe_load(RULE_TESTS.read_text(encoding="utf-8"))["tests"]
    checked = [check for case in cases for check in case.get("alert_rule_test", ())]
    fired = {check["alertname"] for check in checked if check["exp_alerts"]}
    pages = {rule["alert"] for rule in rules() if rule.get("labels", {}).get("severity") == "page"}
    assert len(pages) >= 15
    assert pages - fired == set()
    silent = {check["alertname"] for check in checked if not check["exp_alerts"]}
    assert pages - silent == set(), "a rule that always fires wakes somebody for nothing"
    assert {check["alertname"] for check in checked} <= {rule.get("alert") for rule in rules()}


def promtool(*arguments: str) -> None:
    done = subprocess.run([need("promtool"), *arguments], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
