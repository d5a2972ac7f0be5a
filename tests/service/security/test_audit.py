"""The record of writes: each one, whole, and nothing that does not belong there."""

import json
import multiprocessing
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from service.app import create_app
from service.engine import Engine
from service.security.audit import FILE, AuditLog
from service.settings import Settings
from tests.pictures import encoded

from .conftest import Given

ITEMS = "/v1/collections/default/items"


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / FILE).read_text().splitlines()]


def test_every_write_is_a_line_and_no_reading_is(
    locked: TestClient, given: Given, locked_settings: Settings
) -> None:
    key = given("admin")
    key_id = key["Authorization"].split("_")[1]
    before = len(lines(locked_settings.data))
    headers = {**key, "X-Request-ID": "r-1"}
    files = [("files", (f"{n}.png", encoded(n), "image/png")) for n in (11, 12)]
    files.append(("files", ("secret-name.png", b"no picture", "image/png")))
    data = {"metadata": '{"salary": 12345}', "ids": '["a", "b", "c"]'}
    locked.post(ITEMS, files=files, data=data, headers=headers)
    locked.get(ITEMS, headers=key)
    locked.post(f"{ITEMS[:-6]}/search", json={"item": "a"}, headers=key)
    locked.patch(f"{ITEMS}/a", json={"metadata": {"salary": 1}}, headers=headers)
    locked.delete(f"{ITEMS}/b", headers=headers)
    locked.delete(f"{ITEMS}/b", headers=headers)
    locked.delete(f"{ITEMS}/a", headers=given("read"))
    locked.delete(f"{ITEMS}/a")  # by nobody: not recorded
    locked.post("/v1/collections", json={"name": "???"}, headers=headers)
    written = lines(locked_settings.data)[before:]
    upload, patch, removal, again, weak, made = written
    at = upload.pop("at")
    assert at.endswith("Z")
    assert upload == {
        "operation": "POST /v1/collections/{collection}/items",
        "request_id": "r-1",
        "key": key_id,
        "address": "testclient",
        "collection": "default",
        "status": 200,
        "outcome": "done",
        "items": ["a", "b", "c"],
        "counts": {"added": 2, "failed": 1},
    }
    assert (patch["item"], patch["outcome"], removal["item"]) == ("a", "done", "b")
    assert (again["status"], again["outcome"]) == (404, "refused")
    assert (weak["status"], weak["outcome"]) == (403, "refused")
    assert weak["key"] not in (None, key_id)
    assert (made["collection"], made["status"]) == ("???", 422)
    text = (locked_settings.data / FILE).read_text()
    assert "salary" not in text
    assert "secret-name" not in text
    assert key["Authorization"].split("_", 2)[2] not in text


def test_nobody_without_a_key_pushes_the_record_of_others_out(
    locked: TestClient, given: Given, locked_settings: Settings
) -> None:
    key = given("admin")
    before = lines(locked_settings.data)
    locked.post(ITEMS, headers={"Origin": "https://evil.example"})
    locked.post(ITEMS, headers={"Host": "evil.example"})
    locked.post(ITEMS)
    locked.post(ITEMS, headers={"Authorization": "Bearer pool5_0_0"})
    for headers in ({}, key):
        locked.post("/nonsense", headers=headers)
        locked.options(ITEMS, headers=headers)
    assert lines(locked_settings.data) == before


def test_only_the_owner_may_read_it(locked: TestClient, locked_settings: Settings) -> None:
    assert (locked_settings.data / FILE).stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(("audit", "in_file", "on_stdout"), [("both", 1, 1), ("off", 0, 0)])
def test_where_it_goes_is_a_setting(
    settings: Settings,
    capsys: pytest.CaptureFixture[str],
    audit: str,
    in_file: int,
    on_stdout: int,
) -> None:
    chosen = settings.model_copy(update={"audit": audit})
    with Engine(chosen) as engine, TestClient(create_app(engine)) as client:
        client.delete(f"{ITEMS}/none")
    path = settings.data / FILE
    assert (len(lines(settings.data)) if path.exists() else 0) == in_file
    assert capsys.readouterr().out.count('"DELETE /v1/collections/{collection}') == on_stdout


def _write(settings: Settings, writer: int) -> None:
    log = AuditLog(settings)
    for n in range(200):
        log.write("test", writer=writer, n=n)


def test_several_processes_write_whole_lines_and_begin_new_files(tmp_path: Path) -> None:
    settings = Settings(data=tmp_path, audit_bytes=8_000, audit_files=10)
    processes = [
        multiprocessing.get_context("fork").Process(target=_write, args=(settings, writer))
        for writer in range(3)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    files = list(tmp_path.glob(f"{FILE}*"))
    assert 2 < len(files) <= 10
    assert all(file.stat().st_size <= 8_200 for file in files)
    written = [json.loads(line) for file in files for line in file.read_text().splitlines()]
    assert sorted((line["writer"], line["n"]) for line in written) == [
        (writer, n) for writer in range(3) for n in range(200)
    ]


def test_a_write_is_done_though_it_cannot_be_recorded_and_the_log_says_so(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    with Engine(settings) as engine, TestClient(create_app(engine)) as client:
        (settings.data / FILE).mkdir()
        files = {"files": ("1.png", encoded(1), "image/png")}
        assert client.post(ITEMS, files=files).status_code == 200
    assert "the audit log cannot be written" in "".join(capsys.readouterr())
