"""`/health/live`, `/health/ready`, `/metrics`."""

import importlib.metadata
import io
import time
from collections.abc import Callable

from fastapi import APIRouter, Request, Response
from fastapi.responses import PlainTextResponse
from PIL import Image
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from index import Collection
from models import runtime
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


@router.get("/health/live")
async def live() -> LiveBody:
    """The process answers."""
    return LiveBody(live=True)


@router.get("/health/ready", responses={**problems(), 503: {"model": ReadyBody}})
def ready(engine: EngineDep, caller: CallerDep, request: Request, response: Response) -> ReadyBody:
    """Whether a real forward pass and a real search just worked (503 where not).

    What collections there are is only told to those who may read them all.
    """
    state = request.app.state
    asked = time.monotonic()
    if state.probed is None or asked - state.probed[0] > REMEMBER_S:
        state.probed = (asked, _probe(engine))
    body: ReadyBody = state.probed[1]
    response.status_code = 200 if body.ready else 503
    return body if caller.may("read") and caller.collections is None else _discreet(body)


def _discreet(body: ReadyBody) -> ReadyBody:
    checks = {name: said if said == "ok" else "failed" for name, said in body.checks.items()}
    return body.model_copy(update={"notices": [], "checks": checks})


def _probe(engine: Engine) -> ReadyBody:
    def forward_and_search() -> None:
        buffer = io.BytesIO()
        Image.linear_gradient("L").convert("RGB").save(buffer, "PNG")
        search(engine, _any_collection(engine), Query([buffer.getvalue()], k=1))

    def catalog() -> None:
        engine.catalog.collections()

    checks = {"catalog": _check(catalog), "forward_and_search": _check(forward_and_search)}
    collections = engine.catalog.collections() if checks["catalog"] == "ok" else []
    said = [f"{c.name}: {notice}" for c in collections for notice in notices(c)]
    return ReadyBody(
        ready=all(result == "ok" for result in checks.values()),
        version=VERSION,
        device=runtime.describe_device(engine.device),
        notices=said,
        checks=checks,
    )


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
