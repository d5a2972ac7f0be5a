"""`pool5 search`."""

import json as json_module
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from index.ranking.reranking import METHODS
from service import logs, query
from service.cli.options import (
    ENGINE,
    CollectionName,
    Json,
    SpaceName,
    console,
    print_json,
    takes_settings,
)
from service.cli.progress import opened
from service.engine import DEFAULT
from service.forms import validated
from service.problems import Problem
from service.schemas import SearchOptions
from service.settings import Settings


@takes_settings(*ENGINE, "max_picture_bytes", "max_pixels")
def search(
    settings: Settings,
    picture: Annotated[Path, typer.Argument(help="a picture to search by")],
    collection: CollectionName = DEFAULT,
    k: Annotated[int, typer.Option("-k", help="how many neighbours")] = 10,
    space: SpaceName = None,
    region: Annotated[str | None, typer.Option(help="x0,y0,x1,y1 as shares of the sides")] = None,
    filter: Annotated[str | None, typer.Option(help="on metadata, as JSON")] = None,  # noqa: A002
    rerank: Annotated[
        str | None, typer.Option(help=f"one of {', '.join(METHODS)}, or JSON with parameters")
    ] = None,
    json: Json = False,
) -> None:
    """Find the neighbours of a picture."""
    logs.configure(settings.log_format, level=30)
    options = _options(k=k, space=space, region=region, filter=filter, rerank=rerank)
    content = picture.read_bytes()
    with opened(settings) as engine:
        asked = query.Query(
            [content],
            k=options.k,
            space=options.space,
            region=options.region,
            filter=options.filter,
            rerank=options.rerank,
        )
        answer = query.search(engine, engine.catalog.collection(collection), asked)
    if json:
        neighbours = [
            {
                "id": n.id,
                "score": n.score,
                "similarity": n.similarity,
                "name": n.name,
                "metadata": n.metadata,
            }
            for n in answer.neighbours
        ]
        print_json({"neighbours": neighbours, "space": answer.space, "took_ms": answer.took_ms})
        return
    table = Table("score", "name", "id", box=None)
    for neighbour in answer.neighbours:
        name = neighbour.metadata.get("path", neighbour.name)
        table.add_row(f"{neighbour.score:.4f}", str(name), neighbour.id)
    console.print(table)


def _options(**given: Any) -> SearchOptions:
    values = {name: value for name, value in given.items() if value is not None}
    if "region" in values:
        values["region"] = values["region"].split(",")
    if "filter" in values:
        values["filter"] = _json("filter", values["filter"])
    if values.get("rerank", "").startswith("{"):
        values["rerank"] = _json("rerank", values["rerank"])
    return validated(SearchOptions, values)


def _json(name: str, text: str) -> Any:
    try:
        return json_module.loads(text)
    except ValueError as error:
        raise Problem("request-invalid", f"--{name} is no valid JSON: {error}") from error
