"""Dashboard and alerts ask only for what a real service exports; each alert is in the runbook."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families

from index.generation import UNHURRIED
from service.app import create_app
from service.engine import Engine
from service.settings import Settings
from tests.pictures import encoded

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
DASHBOARD: dict[str, Any] = json.loads((DEPLOY / "grafana/dashboards/pool5.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
RULES = yaml.safe_load((DEPLOY / "alerts.yml").read_text())["groups"][0]["rules"]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())

NAME = re.compile(r"(?<![\w\"./-])(?:pool5|process)_[a-z0-9_]+|\bup\b")


def _expressions() -> Iterator[str]:
    for panel in PANELS:
        yield from (target["expr"] for target in panel["targets"])
    yield from (rule["expr"] for rule in RULES)


def asked(expression: str) -> set[str]:
    """The metrics that an expression names.

    >>> sorted(asked('rate(pool5_a_total{code="pool5_b"}[5m]) / process_c'))
    ['pool5_a_total', 'process_c']
    """
    return set(NAME.findall(expression))


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str]]:
    """Labels by the names of the samples of a service that was used a little."""
    data = tmp_path_factory.mktemp("monitored")
    settings = Settings(
        data=data, offline=True, device="cpu", weights_dir=data / "weights",
        hosts=("testserver",), recall_share=1.0,
    )  # fmt: skip
    with Engine(settings) as engine, TestClient(create_app(engine)) as client:
        client.get("/health/ready")
        client.post("/v1/collections/default/items", files=[("files", encoded(1)), ("files", b"")])
        client.post("/v1/collections/default/search", files={"file": encoded(1)})
        engine.catalog.collection("default").check_recall(UNHURRIED)
        engine.metrics.decoders_lost.labels("decoder-lost")  # None has been lost or restarted yet.
        engine.metrics.stage_restarts.labels("forward")
        text = client.get("/metrics").text
    return {
        sample.name: set(sample.labels)
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


@pytest.mark.parametrize("expression", list(_expressions()))
def test_everything_asked_for_is_exported(expression: str, exported: dict[str, set[str]]) -> None:
    names = asked(expression)
    assert names
    missing = names - set(exported) - {"up"}
    assert not missing
    by = re.findall(r"\bby \(([^)]*)\)", expression)
    matched = re.findall(r"[{,](\w+)(?:=~|!~|!=|=)", expression)
    labels = {label.strip() for listed in by for label in listed.split(",")} | set(matched)
    known = set().union(*(exported.get(name, set()) for name in names))
    assert labels <= known | {"instance", "job"}
    assert expression.count("(") == expression.count(")")
    assert expression.count("{") == expression.count("}")


def test_the_dashboard_can_be_provisioned() -> None:
    identities = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(identities)) == len(identities)
    (source,) = yaml.safe_load(
        (DEPLOY / "grafana/provisioning/datasources/prometheus.yml").read_text()
    )["datasources"]
    assert {panel["datasource"]["uid"] for panel in PANELS} == {source["uid"]}
    host, port = re.fullmatch(r"http://(\w+):(\d+)", source["url"]).groups()  # type: ignore[union-attr]
    assert COMPOSE["services"][host]["ports"][0].endswith(f":{port}")
    (provider,) = yaml.safe_load(
        (DEPLOY / "grafana/provisioning/dashboards/pool5.yml").read_text()
    )["providers"]
    mounted = [volume.split(":")[1] for volume in COMPOSE["services"]["grafana"]["volumes"]]
    assert provider["options"]["path"] in mounted
    assert all(panel["title"] and panel["fieldConfig"]["defaults"]["unit"] for panel in PANELS)


def test_no_two_panels_lie_over_each_other() -> None:
    cells = [
        (x, y)
        for panel in DASHBOARD["panels"]
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24


def test_prometheus_reads_the_alerts_and_each_has_a_place_in_the_runbook() -> None:
    prometheus = yaml.safe_load((DEPLOY / "prometheus.yml").read_text())
    mounted = [volume.split(":")[1] for volume in COMPOSE["services"]["prometheus"]["volumes"]]
    assert [f"/etc/prometheus/{file}" for file in prometheus["rule_files"]] == [mounted[1]]
    runbook = (ROOT / "docs" / "operations.md").read_text()
    for rule in RULES:
        assert rule["labels"]["severity"] in ("page", "ticket")
        assert rule["annotations"]["summary"]
        assert f"`{rule['alert']}`" in runbook


def test_the_service_is_given_the_time_that_its_drain_takes() -> None:
    grace = int(COMPOSE["x-service"]["stop_grace_period"].removesuffix("s"))
    settings = Settings()
    assert grace > settings.drain_notice_s + settings.drain_s + 2
