"""The routes of `/v1`, a file per resource."""

from typing import Annotated

from fastapi import Depends, Path, Request

from index import Collection
from service.engine import Engine


def _engine(request: Request) -> Engine:
    engine: Engine = request.app.state.engine
    return engine


EngineDep = Annotated[Engine, Depends(_engine)]


def _collection(
    engine: EngineDep,
    collection: Annotated[str, Path(description="name of a collection", examples=["default"])],
) -> Collection:
    return engine.catalog.collection(collection)


CollectionDep = Annotated[Collection, Depends(_collection)]
