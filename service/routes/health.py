"""`/health/live`, `/health/ready`, `/metrics`."""

import asyncio
import importlib.metadata
import io
import time
from collections.abc import Callable

from fastapi import APIRouter, Request, Response
from fastapi.responses import PlainTextResponse
from PIL import Image
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from starlette.concurrency import run_in_threadpool

from index import Collection
from models import device
from service.clock import Clock
from service.engine import DEFAULT, Engine, notices
from service.forms import problems
from service.query import Query, search
from service.routes import EngineDep
from service.schemas.health import LiveBody, ReadyBody
from service.security.access import CallerDep

router = APIRouter(tags=["health"])

VERSION = importlib.metadata.version("pool5")
REMEMBER_S = 1.0
"""Balancers probe often; a forward pass for each probe would be load of its own."""

PROBE_S = 10.0
"""A pass and a search that take longer do not work."""


@router.get("/health/live", responses={503: {"model": LiveBody}})
async def live(engine: EngineDep, response: Response) -> LiveBody:
    """The process answers; 503 where only starting it again can help."""
    alive = not engine.batcher.hopeless()
    response.status_code = 200 if alive else 503
    return LiveBody(live=alive)


@router.get("/health/ready", responses={**problems(), 503: {"model": ReadyBody}})
async def ready(
    engine: EngineDep, caller: CallerDep, request: Request, response: Response
) -> ReadyBody:
    """Whether a real forward pass and a real search just worked (503 where not).

    What collections there are is only told to those who may read them all.
    """
    if request.app.state.stopping.is_set():
        response.status_code = 503
        return _answer(engine, {"serving": "shutting-down: the service is being stopped"}, [])
    probe: Probe = request.app.state.probe
    body = await probe.body()
    response.status_code = 200 if body.ready else 503
    return body if caller.may("read") and caller.collections is None else _discreet(body)


def _discreet(body: ReadyBody) -> ReadyBody:
    checks = {name: said if said == "ok" else "failed" for name, said in body.checks.items()}
    return body.model_copy(update={"notices": [], "checks": checks})


class Probe:
    """One probe at a time, whoever asks; its outcome is remembered for a second."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._under_way: asyncio.Future[ReadyBody] | None = None
        self._ended: tuple[float, ReadyBody] | None = None

    async def body(self) -> ReadyBody:
        """What a probe found that ended within the last second, or that ends now."""
        if self._ended and time.monotonic() - self._ended[0] < REMEMBER_S:
            return _with_stages(self._ended[1], self._engine)
        if self._under_way is None:
            self._under_way = asyncio.ensure_future(self._run())
        return await asyncio.shield(self._under_way)

    async def _run(self) -> ReadyBody:
        try:
            body = await run_in_threadpool(_probe, self._engine)
            self._ended = (time.monotonic(), body)
            self._engine.metrics.observe_probe(body.ready)
            return body
        finally:
            self._under_way = None


def _probe(engine: Engine) -> ReadyBody:
    def forward_and_search() -> None:
        buffer = io.BytesIO()
        Image.linear_gradient("L").convert("RGB").save(buffer, "PNG")
        query = Query([buffer.getvalue()], k=1)
        search(engine, _any_collection(engine), query, Clock(PROBE_S))

    def catalog() -> None:
        engine.catalog.collections()

    began = time.monotonic()
    checks = {"catalog": _check(catalog), "forward_and_search": _check(forward_and_search)}
    if all(result == "ok" for result in checks.values()):
        engine.watchdog.proved(began)
    collections = engine.catalog.collections() if checks["catalog"] == "ok" else []
    said = [f"{c.name}: {notice}" for c in collections for notice in notices(c)]
    said += dict.fromkeys(notice for each in engine.loaded() for notice in each.fallbacks)
    return _with_stages(_answer(engine, checks, said), engine)


def _answer(engine: Engine, checks: dict[str, str], said: list[str]) -> ReadyBody:
    return ReadyBody(
        ready=all(result == "ok" for result in checks.values()),
        version=VERSION,
        device=device.describe_device(engine.device),
        runtimes={name: how for each in engine.loaded() for name, how in each.runtimes.items()},
        notices=said,
        checks=checks,
    )


def _with_stages(body: ReadyBody, engine: Engine) -> ReadyBody:
    """Not ready while a stage is dead, stuck, or restarted and not yet proved."""
    failing = engine.watchdog.failing()
    checks = {**body.checks, **failing}
    return body.model_copy(update={"ready": body.ready and not failing, "checks": checks})


def _any_collection(engine: Engine) -> Collection:
    """`default`, or another where that has been dropped; made again only where there is none."""
    names = engine.catalog.names()
    if not names or DEFAULT in names:
        return engine.ensure_default()
    return engine.catalog.collection(names[0])


def _check(attempt: Callable[[], None]) -> str:
    try:
        attempt()
    except Exception as error:  # noqa: BLE001 - not ready, for whatever reason
        return f"{getattr(error, 'code', type(error).__name__)}: {error}"
    return "ok"


@router.get("/metrics", response_class=PlainTextResponse)
def metrics(engine: EngineDep) -> Response:
    """Everything that Prometheus scrapes."""
    return Response(generate_latest(engine.metrics.registry), media_type=CONTENT_TYPE_LATEST)
