"""Spans of a real service, as a real OTLP receiver gets them."""

import gzip
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from service import tracing
from service.app import create_app
from service.engine import Engine
from service.otlp import endpoint
from service.problems import Problem
from service.settings import Settings
from tests.pictures import encoded


class Receiver:
    """An OTLP/HTTP collector on the loopback address that keeps what it gets."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.services: set[str] = set()
        received = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                assert self.path == "/v1/traces"
                received.take(ExportTraceServiceRequest.FromString(body))
                answer = ExportTraceServiceResponse().SerializeToString()
                self.send_response(200)
                self.send_header("Content-Type", "application/x-protobuf")
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_: object) -> None:
                """Quiet."""

        self._server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    def take(self, request: ExportTraceServiceRequest) -> None:
        for resource in request.resource_spans:
            named = {each.key: each.value.string_value for each in resource.resource.attributes}
            self.services.add(named["service.name"])
            for scope in resource.scope_spans:
                self.spans.extend(scope.spans)

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def named(self, name: str) -> list[Span]:
        return [span for span in self.spans if span.name == name]

    def one(self, name: str) -> Span:
        (found,) = self.named(name)
        return found

    def inside(self, name: str, around: Span) -> Span:
        (found,) = [s for s in self.named(name) if s.parent_span_id == around.span_id]
        assert found.trace_id == around.trace_id
        return found


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    opened = Receiver()
    yield opened
    opened.close()


@pytest.fixture
def traced(engine: Engine, settings: Settings, receiver: Receiver) -> Iterator[TestClient]:
    with TestClient(create_app(engine), raise_server_exceptions=False) as opened:
        tracing.configure(settings.model_copy(update={"traces": receiver.url}))
        yield opened
    tracing.close()


def _attributes(span: Span) -> dict[str, str | int]:
    return {each.key: each.value.string_value or each.value.int_value for each in span.attributes}


def test_a_search_is_a_trace_from_the_request_to_the_network(
    traced: TestClient, receiver: Receiver
) -> None:
    calling = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    traced.post(
        "/v1/collections/default/search",
        files={"file": encoded(1)},
        headers={"traceparent": calling, "x-request-id": "mine"},
    ).raise_for_status()
    tracing.close()
    request = receiver.one("POST /v1/collections/{collection}/search")
    assert request.trace_id.hex() == "0af7651916cd43dd8448eb211c80319c"
    assert request.parent_span_id.hex() == "b7ad6b7169203331"
    assert request.kind == Span.SPAN_KIND_SERVER
    said = _attributes(request)
    assert (said["http.response.status_code"], said["pool5.request_id"]) == (200, "mine")
    assert said["url.path"] == "/v1/collections/default/search"
    receiver.inside("decode", request)
    receiver.inside("search", request)
    forward = receiver.inside("forward", request)
    queue, run = receiver.inside("queue", forward), receiver.inside("pass", forward)
    assert forward.start_time_unix_nano <= queue.start_time_unix_nano
    assert queue.end_time_unix_nano <= run.end_time_unix_nano
    assert _attributes(run)["pool5.pictures"] == 1
    assert receiver.services == {"pool5"}


def test_pictures_of_an_upload_are_decoded_and_committed_inside_its_request(
    traced: TestClient, receiver: Receiver
) -> None:
    files = [("files", encoded(seed)) for seed in range(3)]
    traced.post("/v1/collections/default/items", files=files).raise_for_status()
    tracing.close()
    request = receiver.one("POST /v1/collections/{collection}/items")
    batches = {span.span_id for span in receiver.named("batch")}
    assert {span.parent_span_id for span in receiver.named("batch")} == {request.span_id}
    decodes = receiver.named("decode")
    assert len(decodes) == len(receiver.named("pass")) == len(receiver.named("queue")) == 3
    assert {span.parent_span_id for span in decodes} <= batches
    assert _attributes(receiver.one("commit"))["pool5.pictures"] == 3
    assert {span.trace_id for span in receiver.spans} == {request.trace_id}


def test_batches_of_a_job_are_traces_of_their_own_that_name_it(
    traced: TestClient, receiver: Receiver, roots: Path
) -> None:
    for seed in range(3):
        (roots / f"{seed}.png").write_bytes(encoded(seed))
    job = traced.post("/v1/collections/default/jobs", json={"folder": str(roots)}).json()["id"]
    end = time.monotonic() + 60
    while traced.get(f"/v1/jobs/{job}").json()["state"] != "done":
        assert time.monotonic() < end
        time.sleep(0.05)
    tracing.close()
    created = receiver.one("POST /v1/collections/{collection}/jobs")
    batches = receiver.named("batch")
    assert {_attributes(batch)["pool5.job"] for batch in batches} == {job}
    assert not any(batch.parent_span_id for batch in batches)
    assert created.trace_id not in {batch.trace_id for batch in batches}
    assert {span.parent_span_id for span in receiver.named("commit")} <= {
        batch.span_id for batch in batches
    }


def test_what_balancers_ask_leaves_no_trace_and_what_fails_says_so(
    traced: TestClient, receiver: Receiver
) -> None:
    assert traced.get("/health/ready").status_code == 200
    assert traced.get("/v1/collections/none").status_code == 404
    tracing.close()
    (only,) = receiver.spans
    assert (only.name, _attributes(only)["http.response.status_code"]) == (
        "GET /v1/collections/{collection}", 404,
    )  # fmt: skip


def test_off_is_the_default_and_imports_nothing() -> None:
    code = (
        "import sys, service.app, service.cli.serve; from service import tracing;"
        "from service.settings import Settings; tracing.configure(Settings());"
        "assert tracing.span('a') is tracing.span('b'); assert tracing.carried(len) is len;"
        "assert not {'service.otlp', 'opentelemetry.sdk', 'requests'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])


def test_where_spans_go(monkeypatch: pytest.MonkeyPatch) -> None:
    assert endpoint("https://c.example/otlp/", offline=False) == "https://c.example/otlp/v1/traces"
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c.example:4318")
    assert endpoint("otel", offline=False) == "http://c.example:4318/v1/traces"
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://[::1]:1/here")
    assert endpoint("otel", offline=True) == "http://[::1]:1/here"


@pytest.mark.parametrize(
    ("setting", "code"),
    [
        ("http://c.example:4318", "traces-offline"),
        ("http://10.0.0.1", "traces-offline"),
        ("c.example:4318", "traces-unclear"),
        ("otel", "traces-unclear"),
    ],
)
def test_offline_means_no_collector_but_on_the_loopback(setting: str, code: str) -> None:
    with pytest.raises(Problem) as refused:
        endpoint(setting, offline=True)
    assert refused.value.code == code
