"""The routes of `/v1`, a file per resource."""

from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import Depends, Path, Request

from index import Collection
from service.engine import Engine


async def _engine(request: Request) -> Engine:
    engine: Engine = request.app.state.engine
    return engine


EngineDep = Annotated[Engine, Depends(_engine)]


async def _searches(engine: EngineDep) -> AsyncIterator[None]:
    with engine.queries.arriving():
        yield


async def _uploads(engine: EngineDep) -> AsyncIterator[None]:
    with engine.uploads.arriving():
        yield


SEARCHES = Depends(_searches)
UPLOADS = Depends(_uploads)
"""Counted from their arrival on, and refused before anything is looked up or received for them."""


CollectionName = Annotated[str, Path(description="name of a collection", examples=["default"])]


def _collection(engine: EngineDep, collection: CollectionName) -> Collection:
    return engine.catalog.collection(collection)


CollectionDep = Annotated[Collection, Depends(_collection)]
