"""`pool5 search`."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from index import Verification
from index.ranking.reranking import METHODS
from service import logs, query
from service.cli.options import (
    ENGINE,
    CollectionName,
    Json,
    SpaceName,
    console,
    json_of,
    print_json,
    takes_settings,
)
from service.cli.progress import opened
from service.engine import DEFAULT
from service.forms import validated
from service.schemas.search import SearchOptions
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
    verify: Annotated[
        int | None, typer.Option(help="verify so many of the first by where their parts stand")
    ] = None,
    json: Json = False,
) -> None:
    """Find the neighbours of a picture."""
    logs.configure(settings.log_format, level=30)
    options = _options(k=k, space=space, region=region, filter=filter, rerank=rerank, verify=verify)
    content = picture.read_bytes()
    with opened(settings) as engine:
        asked = query.Query(
            [content],
            k=options.k,
            space=options.space,
            region=options.region,
            filter=options.filter,
            rerank=options.rerank,
            verify=Verification(**options.verify.model_dump()) if options.verify else None,
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
            | ({} if n.inliers is None else {"inliers": n.inliers})
            for n in answer.neighbours
        ]
        print_json({"neighbours": neighbours, "space": answer.space, "took_ms": answer.took_ms})
        return
    verified = ["inliers"] if verify else []
    table = Table("score", *verified, "name", "id", box=None)
    for neighbour in answer.neighbours:
        name = neighbour.metadata.get("path", neighbour.name)
        inliers = ["" if neighbour.inliers is None else str(neighbour.inliers)] if verify else []
        table.add_row(f"{neighbour.score:.4f}", *inliers, str(name), neighbour.id)
    console.print(table)


def _options(**given: Any) -> SearchOptions:
    values = {name: value for name, value in given.items() if value is not None}
    if "region" in values:
        values["region"] = values["region"].split(",")
    if "verify" in values:
        values["verify"] = {"n": values["verify"]}
    if "filter" in values:
        values["filter"] = json_of("filter", values["filter"])
    if values.get("rerank", "").startswith("{"):
        values["rerank"] = json_of("rerank", values["rerank"])
    return validated(SearchOptions, values)
