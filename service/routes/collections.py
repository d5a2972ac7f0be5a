"""`/v1/collections`: making, describing and dropping collections."""

from fastapi import APIRouter, Request
from starlette.concurrency import run_in_threadpool

from index import Collection
from service.engine import kept_grids, notices
from service.forms import problems
from service.indexing import spool
from service.routes import CollectionDep, EngineDep
from service.schemas.collections import (
    CollectionBody,
    CollectionsBody,
    IndexBody,
    IndexPolicy,
    NewCollection,
    SpaceBody,
)
from service.security.access import CallerDep
from service.security.audit import note

router = APIRouter(prefix="/v1", tags=["collections"])


@router.post("/collections", status_code=201, responses=problems(400, 404, 409, 422, 503, 507))
async def create_collection(
    engine: EngineDep, caller: CallerDep, request: Request, new: NewCollection
) -> CollectionBody:
    """Make a collection. It stays pinned to the weights that are found for it now."""
    note(request, collection=new.name[:100])
    caller.check(new.name)

    def create() -> CollectionBody:
        made = engine.create_collection(
            new.name,
            new.spaces,
            new.weights or {engine.settings.network: engine.settings.weights},
            keep=new.keep,
            dtype=new.dtype,
            index=new.index.model_dump(),
            keep_grids=new.keep_grids,
        )
        return _body(made)

    return await run_in_threadpool(create)


@router.get("/collections")
def list_collections(engine: EngineDep, caller: CallerDep) -> CollectionsBody:
    """All collections that the caller may read."""
    found = (one for one in engine.catalog.collections() if caller.reaches(one.name))
    return CollectionsBody(collections=[_body(one) for one in found])


@router.get("/collections/{collection}", responses=problems(404))
def get_collection(collection: CollectionDep) -> CollectionBody:
    """A collection: its spaces, its index and the weights it is pinned to."""
    return _body(collection)


@router.delete("/collections/{collection}", status_code=204, responses=problems(404, 503, 507))
def drop_collection(engine: EngineDep, collection: CollectionDep) -> None:
    """Drop a collection with its items, descriptors, kept pictures and jobs."""
    jobs = engine.catalog.jobs.list(collection.name, 10_000)
    engine.catalog.drop_collection(collection.name)
    for job in jobs:
        if job.state == "queued":
            spool.discard(job.source)


def _body(collection: Collection) -> CollectionBody:
    status = collection.status()
    return CollectionBody(
        name=collection.name,
        spaces={
            name: SpaceBody(
                spec=space.spec,
                fingerprint=space.fingerprint,
                dim=space.dim,
                dtype=space.dtype,
                weights=space.origin["weights"],
                index=IndexBody(**status["spaces"][name]),
            )
            for name, space in collection.spaces.items()
        },
        weights={s.origin["network"]: s.origin["weights"] for s in collection.spaces.values()},
        keep=collection.settings["keep"],
        keep_grids=kept_grids(collection),
        index=IndexPolicy(**collection.settings["index"]),
        items=status["items"],
        created_at=collection.created_at,
        notices=notices(collection),
    )
