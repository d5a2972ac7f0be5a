"""Log lines that a machine can read."""

import json
import logging

import pytest
from fastapi.testclient import TestClient

from service import logs


def test_a_request_is_one_json_line_with_its_id(
    client: TestClient, logs_restored: None, capsys: pytest.CaptureFixture[str]
) -> None:
    logs.configure("json")
    capsys.readouterr()
    client.get("/v1/collections/none", headers={"x-request-id": "mine-1"})
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    (line,) = [line for line in lines if line["event"] == "request"]
    assert line["request_id"] == "mine-1"
    assert (line["method"], line["path"], line["status"]) == ("GET", "/v1/collections/none", 404)
    assert line["level"] == "info"
    assert line["ms"] >= 0


def test_the_standard_librarys_loggers_speak_the_same(
    logs_restored: None, capsys: pytest.CaptureFixture[str]
) -> None:
    logs.configure("json")
    logging.getLogger("models.weights").warning("a fallback")
    line = json.loads(capsys.readouterr().err)
    assert (line["event"], line["level"], line["logger"]) == (
        "a fallback", "warning", "models.weights",
    )  # fmt: skip
