"""What Prometheus sees of a service that did this and that."""

from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families

from service.engine import Engine
from service.metrics import Metrics, Sample
from tests.service.conftest import Upload

Series = dict[str, float]


def scraped(client: TestClient) -> Series:
    """Every sample by its name and labels, as PromQL writes them."""
    text = client.get("/metrics").text
    return {
        sample.name
        + "{" + ", ".join(f'{k}="{v}"' for k, v in sorted(sample.labels.items())) + "}":
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }  # fmt: skip


def test_items_and_the_parts_they_are_in(
    client: TestClient, engine: Engine, upload: Upload
) -> None:
    first, *_ = upload(1, 2, 3)
    engine.catalog.collection("default").compact()
    upload(4)
    client.delete(f"/v1/collections/default/items/{first['id']}")
    found = scraped(client)
    of = '{collection="default"}'
    assert found[f"pool5_items{of}"] == 3
    assert found[f"pool5_delta_items{of}"] == 1
    assert found[f"pool5_tombstones{of}"] == 1
    assert found['pool5_generation_bytes{collection="default", space="high"}'] > 0
    assert found['pool5_pictures_total{collection="default", status="added"}'] == 4


def test_problems_are_counted_by_code_whoever_finds_them(
    client: TestClient, upload: Upload
) -> None:
    client.get("/v1/collections/none")
    client.get("/nowhere")
    client.post("/v1/collections", content=b"{")
    client.post("/v1/collections/default/search", json={"item": "x" * 9_000_000})
    client.post("/v1/collections/default/items", files={"files": b"no picture"})
    found = scraped(client)
    counted = {
        name.removeprefix("pool5_problems_total"): value
        for name, value in found.items()
        if name.startswith("pool5_problems_total")
    }
    assert counted == {
        '{code="collection-unknown", where="answer"}': 1,
        '{code="not-found", where="answer"}': 1,
        '{code="request-invalid", where="answer"}': 1,
        '{code="request-too-large", where="answer"}': 1,
        '{code="picture-format-unknown", where="picture"}': 1,
    }


def test_readiness_process_disk_build_jobs_and_queues(client: TestClient) -> None:
    assert client.get("/health/ready").status_code == 200
    found = scraped(client)
    assert found["pool5_ready{}"] == 1
    assert 0 < found["pool5_disk_free_bytes{}"] < found["pool5_disk_bytes{}"]
    assert found["pool5_catalog_bytes{}"] > 10_000
    assert found["process_resident_memory_bytes{}"] > 50e6
    assert found["process_open_fds{}"] > 3
    assert [name for name in found if name.startswith("pool5_build_info{") and "torch=" in name]
    states = ("queued", "running", "done", "cancelled", "failed")
    assert {f'pool5_jobs{{state="{state}"}}' for state in states} <= set(found)
    assert found['pool5_waiting_seconds{lane="query"}'] == 0


def test_a_job_is_counted_under_its_state(client: TestClient, engine: Engine) -> None:
    job = engine.catalog.jobs.create("none", {"folder": "/nowhere"})
    engine.catalog.jobs.cancel(job.id)
    found = scraped(client)
    ended = ("cancelled", "failed")  # The runner may have been faster.
    assert sum(found[f'pool5_jobs{{state="{state}"}}'] for state in ended) == 1


def test_a_gauge_that_cannot_be_read_leaves_the_others(
    client: TestClient, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> list[Sample]:
        raise OSError("no such disk")

    engine.metrics.read_at_scrape(broken)
    assert "pool5_disk_free_bytes{}" in scraped(client)


def test_two_services_in_one_process_do_not_share_series(tmp_path: Path) -> None:
    one, other = Metrics(), Metrics()
    one.observe_batch(4, 0.1)
    assert one.registry.get_sample_value("pool5_batch_pictures_count") == 1
    assert other.registry.get_sample_value("pool5_batch_pictures_count") == 0
