"""The FastAPI application: routes, middleware, life cycle."""

import importlib.resources
import json
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import FastAPI, HTTPException, Response
from fastapi.responses import FileResponse, HTMLResponse, PlainTextResponse
from fastapi.staticfiles import StaticFiles
from starlette.concurrency import run_in_threadpool

from service import problems, remedies
from service.engine import Engine
from service.forms import problems as problem_responses
from service.indexing import spool
from service.indexing.runner import JobRunner
from service.observing import Observe
from service.routes import (
    collections,
    descriptors,
    explain,
    health,
    items,
    jobs,
    networks,
    search,
    snapshots,
)
from service.schemas.base import ProblemBody
from service.schemas.explain import ExplainBody
from service.schemas.jobs import NewJob
from service.schemas.search import SearchBody
from service.security import protect
from service.watchdog import Stage
from service.watching import RecallWatcher

PAGE = Path(__file__).parent / "page"

ANY_ROUTE = (401, 403, 408, 413, 421, 429)
"""What `security` answers before any route does."""


def create_app(engine: Engine) -> FastAPI:
    """The service over an engine, which whoever opened it closes after the service has ended."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        await run_in_threadpool(engine.ensure_default)
        runner = JobRunner(engine)
        app.state.engine = engine
        app.state.runner = runner
        app.state.probe = health.Probe(engine)
        jobs_left = await run_in_threadpool(engine.catalog.jobs.list, None, 10_000)
        spool.sweep(engine.settings.data, jobs_left)
        runner.start()
        watcher = RecallWatcher(engine.catalog)
        watcher.start()
        engine.watchdog.stages.append(Stage("jobs", runner.failing, runner.restart))
        engine.decoders.warm("query")
        try:
            yield
        finally:
            app.state.stopping.set()
            await run_in_threadpool(watcher.stop)
            await run_in_threadpool(runner.stop)

    app = FastAPI(
        title="pool5",
        version=health.VERSION,
        summary="Image search on the activations of convolutional networks",
        description="Errors are problem details (RFC 9457) with a stable `code`.",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
    )
    app.state.stopping = threading.Event()
    problems.install(app)
    for resource in (
        networks, descriptors, collections, items, search, explain, jobs, snapshots, health,
    ):  # fmt: skip
        app.include_router(resource.router)
    _add_pages(app)
    _describe_bodies(app)
    protect(app, engine)
    app.add_middleware(Observe)
    return app


class _Revalidated(StaticFiles):
    """Files that a browser asks about each time, so that an upgrade reaches it at once."""

    def file_response(self, *args: Any, **kwargs: Any) -> Response:
        """The file, or 304 where the browser has it already."""
        response = super().file_response(*args, **kwargs)
        response.headers["Cache-Control"] = "no-cache"
        return response


def _add_pages(app: FastAPI) -> None:
    """The search page, the API page and what the problem types point to."""
    swagger = importlib.resources.files("fastapi_offline") / "static"

    @app.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(PAGE / "index.html", headers={"Cache-Control": "no-cache"})

    @app.get("/docs", include_in_schema=False)
    async def api_page() -> HTMLResponse:
        return HTMLResponse((PAGE / "api.html").read_text())

    @app.get("/problems/{code}", include_in_schema=False)
    async def problem_type(code: str) -> PlainTextResponse:
        if code not in remedies.REMEDIES:
            raise HTTPException(404, f"there is no problem {code!r}")
        said = f"{code}: HTTP status {problems.status_of(code)}\n\n{remedies.remedy(code)}\n"
        return PlainTextResponse(said)

    app.mount("/static", _Revalidated(directory=PAGE), name="static")
    app.mount("/swagger", StaticFiles(directory=str(swagger)), name="swagger")


def _describe_bodies(app: FastAPI) -> None:
    """Put the schemas into OpenAPI that routes with several content types refer to by name."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        document = generate()
        document["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        document["security"] = [{"key": []}, {}]
        for model in (SearchBody, ExplainBody, NewJob, ProblemBody):
            schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
            document["components"]["schemas"].update(schema.pop("$defs", {}))
            document["components"]["schemas"][model.__name__] = schema
        for operation in _operations(document):
            operation["responses"].setdefault("503", problem_responses(503)[503])
            if "HTTPValidationError" in json.dumps(operation["responses"].get("422", {})):
                operation["responses"]["422"] = problem_responses(422)[422]
            for status, response in problem_responses(*ANY_ROUTE).items():
                operation["responses"].setdefault(str(status), response)
        document["components"]["schemas"].pop("HTTPValidationError", None)
        document["components"]["schemas"].pop("ValidationError", None)
        return document

    app.openapi = openapi  # type: ignore[method-assign]


def _operations(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for path in document["paths"].values():
        yield from path.values()
