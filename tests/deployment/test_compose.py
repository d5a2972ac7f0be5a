import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from service.settings import Settings

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "compose.yaml").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load(TEXT)
SERVICES: dict[str, Any] = COMPOSE["services"]


@pytest.mark.parametrize("name", SERVICES)
def test_a_container_cannot_change_its_image_or_gain_rights(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]


@pytest.mark.parametrize("name", SERVICES)
def test_nothing_is_published_beyond_the_loopback_interface(name: str) -> None:
    assert SERVICES[name]["ports"]
    assert all(port.startswith("127.0.0.1:") for port in SERVICES[name]["ports"])


@pytest.mark.parametrize("name", SERVICES)
def test_every_volume_is_declared_or_a_file_of_the_repository(name: str) -> None:
    for volume in SERVICES[name]["volumes"]:
        source = volume.partition(":")[0]
        assert source in COMPOSE["volumes"] or (ROOT / source).exists()


def test_every_image_is_built_here_or_pinned() -> None:
    stages = re.findall(r"^FROM \S+ AS (\S+)$", (ROOT / "Dockerfile").read_text(), re.M)
    for service in SERVICES.values():
        if "build" in service:
            assert service["build"]["target"] in stages
        else:
            assert re.search(r":v?\d+\.\d+\.\d+$", service["image"])


def test_every_variable_is_a_setting() -> None:
    names = re.findall(r"\bPOOL5_(\w+):", TEXT)
    assert names
    assert {name.lower() for name in names} <= set(Settings.model_fields)


def test_a_service_without_keys_is_published_on_the_loopback_only() -> None:
    for service in SERVICES.values():
        if service.get("environment", {}).get("POOL5_INSECURE"):
            assert all(port.startswith("127.0.0.1:") for port in service["ports"])


def test_prometheus_calls_the_service_by_a_name_that_it_goes_by() -> None:
    prometheus = yaml.safe_load((ROOT / "deploy" / "prometheus.yml").read_text())
    (target,) = prometheus["scrape_configs"][0]["static_configs"][0]["targets"]
    assert target.partition(":")[0] in SERVICES["pool5"]["environment"]["POOL5_HOSTS"].split(",")


def test_only_the_cpu_service_starts_unasked() -> None:
    assert [name for name, service in SERVICES.items() if "profiles" not in service] == ["pool5"]


def test_prometheus_scrapes_a_service_of_that_name_and_port() -> None:
    prometheus = yaml.safe_load((ROOT / "deploy" / "prometheus.yml").read_text())
    (target,) = prometheus["scrape_configs"][0]["static_configs"][0]["targets"]
    name, _, port = target.partition(":")
    assert SERVICES[name]["ports"][0].endswith(f":{port}")
    assert name in SERVICES["pool5-gpu"]["networks"]["default"]["aliases"]
