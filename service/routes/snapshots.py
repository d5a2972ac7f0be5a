"""Snapshots: consistent copies, taken while the service goes on, under the data folder."""

from typing import Annotated

from fastapi import APIRouter, Path

from index.snapshot import Snapshot
from service.forms import problems
from service.routes import CollectionDep, EngineDep
from service.schemas.snapshots import SnapshotBody, SnapshotsBody

router = APIRouter(prefix="/v1", tags=["snapshots"])


@router.post(
    "/collections/{collection}/snapshots", status_code=201, responses=problems(404, 409, 507)
)
def take_snapshot(engine: EngineDep, collection: CollectionDep) -> SnapshotBody:
    """Take a snapshot of one collection. It is whole and on disk when the answer arrives."""
    return _body(engine.take_snapshot(collection.name))


@router.get("/collections/{collection}/snapshots", responses=problems(404))
def list_collection_snapshots(engine: EngineDep, collection: CollectionDep) -> SnapshotsBody:
    """The snapshots of one collection by itself."""
    found = [one for one in engine.catalog.snapshots() if one.collection == collection.name]
    return SnapshotsBody(snapshots=[_body(one) for one in found])


@router.post("/snapshots", status_code=201, responses=problems(409, 507))
def take_whole_snapshot(engine: EngineDep) -> SnapshotBody:
    """Take a snapshot of all collections."""
    return _body(engine.take_snapshot())


@router.get("/snapshots")
def list_snapshots(engine: EngineDep) -> SnapshotsBody:
    """All snapshots, also of collections that have been dropped since."""
    return SnapshotsBody(snapshots=[_body(one) for one in engine.catalog.snapshots()])


@router.delete("/snapshots/{snapshot}", status_code=204, responses=problems(404, 409))
def drop_snapshot(
    engine: EngineDep, snapshot: Annotated[str, Path(description="name of a snapshot")]
) -> None:
    """Remove a snapshot."""
    engine.catalog.drop_snapshot(snapshot)


def _body(taken: Snapshot) -> SnapshotBody:
    return SnapshotBody(
        name=taken.name,
        collection=taken.collection,
        created_at=taken.created_at,
        collections=dict(taken.collections),
        files=taken.files,
        bytes=taken.bytes,
    )
