"""Who may do what: every route by every kind of caller."""

import asyncio
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from starlette.routing import Mount, Route

from index import Catalog
from index.errors import DiskError
from index.keys import SCOPES
from service import logs
from service.app import create_app
from service.engine import Engine
from service.problems import Problem
from service.security.bodies import MOST_FORGOTTEN
from service.security.callers import Caller, Keyring, check_start, is_loopback
from service.security.operations import ANSWER_FOR_THEIR_CALLER, OPERATIONS, operation
from service.settings import Settings
from tests import apart
from tests.pictures import encoded

from .conftest import Given, request_of

NEEDED = {name: scope for name, scope in OPERATIONS.items() if scope}
HEALTH = ("GET /health/live", "GET /health/ready")
SCOPED = [name for name in NEEDED if name not in HEALTH]


def code(answer: httpx.Response) -> str:
    assert answer.headers["content-type"] == "application/problem+json"
    found: str = answer.json()["code"]
    return found


def routes(app: FastAPI) -> Iterator[str]:
    for path, methods in app.openapi()["paths"].items():
        yield from (f"{method.upper()} {path}" for method in methods)
    for route in app.routes:
        if isinstance(route, Route):
            yield from (f"{method} {route.path}" for method in (route.methods or ()))
        elif isinstance(route, Mount):
            yield f"GET {route.path}/{{file:path}}"


def test_every_route_is_in_the_table_and_nothing_else_is(locked_app: FastAPI) -> None:
    assert {name for name in routes(locked_app) if not name.startswith("HEAD ")} == set(OPERATIONS)
    assert set(OPERATIONS) >= ANSWER_FOR_THEIR_CALLER


def test_a_route_that_is_in_no_table_needs_a_key_for_everything() -> None:
    assert operation("GET", "/v1/secrets").scope == "admin"
    assert operation("PUT", "/v1/collections").scope == "admin"
    assert not operation("GET", "/v1/secrets").answers_for(frozenset({"shoes"}))


@pytest.mark.parametrize("name", SCOPED)
def test_without_a_key_nothing_is_done(locked: TestClient, name: str) -> None:
    answer = locked.request(*request_of(name))
    assert (answer.status_code, code(answer)) == (401, "key-missing")
    assert answer.headers["www-authenticate"] == 'Bearer realm="pool5"'


@pytest.mark.parametrize("name", SCOPED)
def test_a_key_of_less_scope_does_nothing(locked: TestClient, given: Given, name: str) -> None:
    for scope in SCOPES[: SCOPES.index(NEEDED[name])]:
        answer = locked.request(*request_of(name), headers=given(scope))
        assert (answer.status_code, code(answer)) == (403, "scope-missing")
        needed = f'error="insufficient_scope", scope="{NEEDED[name]}"'
        assert answer.headers["www-authenticate"].endswith(needed)


@pytest.mark.parametrize("name", [name for name in SCOPED if not name.startswith("DELETE")])
def test_the_scope_that_is_named_is_enough(locked: TestClient, given: Given, name: str) -> None:
    answer = locked.request(*request_of(name), headers=given(NEEDED[name]))
    assert answer.status_code not in (401, 403), answer.text


@pytest.mark.parametrize("path", ["/", "/docs", "/openapi.json", "/static/main.js", *HEALTH])
def test_the_page_and_the_probes_need_no_key(locked: TestClient, path: str) -> None:
    assert locked.get(path.split(" ")[-1]).status_code == 200


@pytest.mark.parametrize("name", [name for name in SCOPED if "{collection}" in name])
def test_a_key_for_one_collection_reaches_no_other(
    locked: TestClient, given: Given, name: str
) -> None:
    there = locked.request(*request_of(name), headers=given("admin", "shoes"))
    assert (there.status_code, code(there)) == (403, "collection-forbidden")
    nowhere = locked.request(*request_of(name, collection="none"), headers=given("admin", "shoes"))
    assert nowhere.json() == {
        **there.json(),
        "detail": there.json()["detail"].replace("'default'", "'none'"),
        "instance": there.json()["instance"].replace("default", "none"),
    }, "the answer says whether there is such a collection"


@pytest.mark.parametrize("name", [name for name in SCOPED if "{collection}" not in name])
def test_what_belongs_to_no_collection_is_for_keys_without_limits(
    locked: TestClient, given: Given, name: str
) -> None:
    answer = locked.request(*request_of(name), headers=given("admin", "shoes"))
    assert (answer.status_code == 403) == (name not in ANSWER_FOR_THEIR_CALLER)


def test_a_key_for_one_collection_sees_that_one_only(
    locked: TestClient, given: Given, locked_engine: Engine
) -> None:
    jobs = locked_engine.catalog.jobs
    own, other = jobs.create("shoes", {"folder": "/a"}), jobs.create("default", {"folder": "/b"})
    for job in (own, other):
        jobs.cancel(job.id)
    key = given("admin", "shoes")
    collections = locked.get("/v1/collections", headers=key).json()["collections"]
    assert [found["name"] for found in collections] == ["shoes"]
    assert {job["id"] for job in locked.get("/v1/jobs", headers=key).json()["jobs"]} == {own.id}
    for path in ("", "/errors", "/events"):
        assert locked.get(f"/v1/jobs/{own.id}{path}", headers=key).status_code == 200
        assert locked.get(f"/v1/jobs/{other.id}{path}", headers=key).status_code == 403
    assert locked.delete(f"/v1/jobs/{other.id}", headers=key).status_code == 403
    made = locked.post("/v1/collections", json={"name": "hats"}, headers=key)
    assert (made.status_code, code(made)) == (403, "collection-forbidden")
    assert locked.get("/v1/collections/shoes/items/2", headers=key).status_code == 200


def test_what_is_not_ready_and_why_is_told_to_those_who_may_read(
    locked: TestClient, given: Given
) -> None:
    assert locked.get("/health/ready").json()["notices"] == []
    assert locked.get("/health/ready", headers=given("read", "shoes")).json()["notices"] == []
    assert "untrained" in str(locked.get("/health/ready", headers=given("read")).json()["notices"])


@pytest.mark.parametrize(
    "header",
    ["Bearer", "Bearer ", "Bearer x", "Bearer pool5_0_0", "Basic dXNlcjpwYXNz", "é", "Bearer \x00"],
)
def test_what_is_no_key_is_refused_even_where_none_is_needed(
    locked: TestClient, header: str
) -> None:
    for path in ("/v1/networks", "/health/live"):
        answer = locked.get(path, headers={"Authorization": header.encode("latin-1")})
        assert (answer.status_code, code(answer)) == (401, "key-refused")
        assert answer.headers["www-authenticate"].endswith('error="invalid_token"')


def test_two_keys_at_once_are_none(locked: TestClient, given: Given) -> None:
    key = given("read")["Authorization"]
    answer = locked.get("/v1/networks", headers=[("Authorization", key), ("Authorization", key)])
    assert (answer.status_code, code(answer)) == (401, "key-refused")


def test_a_key_in_the_address_counts_for_nothing(locked: TestClient, given: Given) -> None:
    secret = given("read")["Authorization"].removeprefix("Bearer ")
    for name in ("key", "api_key", "access_token", "token"):
        assert locked.get("/v1/networks", params={name: secret}).status_code == 401


def test_a_body_that_nobody_will_read_ends_the_connection(locked: TestClient) -> None:
    large, small = b"x" * (MOST_FORGOTTEN + 1), b"x" * 100
    assert locked.post("/v1/descriptors", content=large).headers["connection"] == "close"
    assert "connection" not in locked.post("/v1/descriptors", content=small).headers


def test_keys_are_changed_by_another_process_while_the_service_runs(
    locked: TestClient, locked_engine: Engine
) -> None:
    with Catalog.open(locked_engine.settings.data) as other:
        key, secret = other.keys.add("late", "read")
        headers = {"Authorization": f"Bearer {secret}"}
        within_a_second(lambda: locked.get("/v1/networks", headers=headers).status_code == 200)
        successor, newer = other.keys.rotate(key.id)
        within_a_second(lambda: locked.get("/v1/networks", headers=headers).status_code == 401)
        headers = {"Authorization": f"Bearer {newer}"}
        assert locked.get("/v1/networks", headers=headers).status_code == 200
        other.keys.revoke(successor.id)
        within_a_second(lambda: locked.get("/v1/networks", headers=headers).status_code == 401)


def test_a_catalog_that_cannot_be_read_leaves_the_keys_as_they_were(
    locked: TestClient, locked_engine: Engine, given: Given, monkeypatch: pytest.MonkeyPatch
) -> None:
    headers = given("read")
    assert locked.get("/v1/networks", headers=headers).status_code == 200

    def fails() -> list[Any]:
        raise DiskError("disk-full", "no space is left")

    monkeypatch.setattr(locked_engine.catalog.keys, "list", fails)
    assert locked.get("/v1/networks", headers=headers).status_code == 200
    assert locked.get("/v1/networks").status_code == 401


def test_while_no_keys_were_ever_seen_only_the_process_itself_answers(
    locked_engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails() -> list[Any]:
        raise DiskError("catalog-busy", "another process holds the catalog")

    with TestClient(create_app(locked_engine), raise_server_exceptions=False) as client:
        monkeypatch.setattr(locked_engine.catalog.keys, "list", fails)
        refused = client.get("/v1/networks")
        assert (refused.status_code, code(refused)) == (503, "catalog-busy")
        assert client.get("/health/live").status_code == 200
        monkeypatch.undo()
        assert client.get("/v1/networks").status_code == 401


def test_callers_at_once_cost_one_look_at_the_keys(
    locked_engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[float] = []

    def slow() -> list[Any]:
        looks.append(time.monotonic())
        time.sleep(0.05)
        return []

    monkeypatch.setattr(locked_engine.catalog.keys, "list", slow)
    keyring = Keyring(locked_engine.catalog.keys, locked_engine.settings)

    async def together() -> list[Caller]:
        return await asyncio.gather(*(keyring.caller("", "192.0.2.1") for _ in range(20)))

    assert {caller.scope for caller in apart.run(together())} == {None}
    assert len(looks) == 1


def test_an_answer_that_nobody_expected_looks_like_any_other(
    locked: TestClient, locked_engine: Engine, given: Given, monkeypatch: pytest.MonkeyPatch
) -> None:
    headers = {**given("read"), "X-Request-ID": "r-500"}

    def breaks() -> None:
        raise RuntimeError("not meant for callers")

    monkeypatch.setattr(locked_engine.catalog, "collections", breaks)
    answer = locked.get("/v1/collections", headers=headers)
    assert (answer.status_code, code(answer)) == (500, "internal-error")
    assert "not meant" not in answer.text
    assert answer.headers["x-request-id"] == "r-500"
    assert answer.headers["x-content-type-options"] == "nosniff"
    counted = locked.get("/metrics", headers=headers).text
    assert 'pool5_problems_total{code="internal-error",where="answer"}' in counted


def within_a_second(holds: Any) -> None:
    deadline = time.monotonic() + 1
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_the_log_names_the_key_and_never_its_secret(
    locked: TestClient, given: Given, capsys: pytest.CaptureFixture[str], logs_restored: None
) -> None:
    logs.configure("json")
    secret = given("read")["Authorization"].removeprefix("Bearer ")
    locked.get("/v1/networks", headers={"Authorization": f"Bearer {secret}"})
    locked.get("/v1/networks", headers={"Authorization": f"Bearer {secret}x"})
    said = capsys.readouterr().err
    lines = [json.loads(line) for line in said.splitlines()]
    assert [line.get("key") for line in lines if line["event"] == "request"] == [
        secret.split("_")[1],
        None,
    ]
    assert secret.split("_", 2)[2] not in said


def test_on_the_loopback_keys_are_needed_from_the_first_to_the_last(
    locked_settings: Settings, locked_engine: Engine
) -> None:
    local = locked_settings.model_copy(update={"host": "127.0.0.1"})
    assert is_loopback(local.host)
    empty = local.model_copy(update={"data": local.data / "other"})
    with Engine(empty) as engine, TestClient(create_app(engine)) as client:
        assert client.get("/v1/networks").status_code == 200
        for header in ("X-Forwarded-For", "Forwarded"):  # A proxy's visitor may be anybody.
            visitor = client.get("/v1/networks", headers={header: "192.0.2.1"})
            assert (visitor.status_code, code(visitor)) == (401, "key-missing")
            assert "pool5 keys add" in visitor.json()["detail"]
        key, _ = engine.catalog.keys.add("first", "admin")
        within_a_second(lambda: client.get("/v1/networks").status_code == 401)
        engine.catalog.keys.revoke(key.id)
        time.sleep(0.6)
        assert client.get("/v1/networks").status_code == 401, "fell open"
    with Engine(empty.model_copy(update={"insecure": True})) as engine:
        files = {"files": ("1.png", encoded(1), "image/png")}
        with TestClient(create_app(engine)) as client:
            assert client.post("/v1/collections/default/items", files=files).status_code == 200


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org", ""])
def test_no_other_address_is_listened_on_without_keys(tmp_path: Path, host: str) -> None:
    with Catalog.open(tmp_path) as catalog:
        settings = Settings(host=host, data=tmp_path)
        with pytest.raises(Problem, match="pool5 keys add") as refused:
            check_start(catalog.keys, settings)
        assert refused.value.code == "keys-missing"
        check_start(catalog.keys, settings.model_copy(update={"insecure": True}))
        local = settings.model_copy(update={"host": "localhost"})
        check_start(catalog.keys, local)
        behind = local.model_copy(update={"trusted_proxies": ("127.0.0.1",)})
        with pytest.raises(Problem, match="POOL5_TRUSTED_PROXIES"):
            check_start(catalog.keys, behind)
        check_start(catalog.keys, behind.model_copy(update={"insecure": True}))
        key, _ = catalog.keys.add("ops", "read")
        check_start(catalog.keys, settings)
        catalog.keys.revoke(key.id)
        with pytest.raises(Problem):
            check_start(catalog.keys, settings)


def test_which_probes_are_open_is_a_setting(locked_settings: Settings) -> None:
    update = {"open_paths": ("/metrics",), "data": locked_settings.data / "probes"}
    with (
        Engine(locked_settings.model_copy(update=update)) as engine,
        TestClient(create_app(engine)) as client,
    ):
        assert client.get("/metrics").status_code == 200
        assert client.get("/health/live").status_code == 401
