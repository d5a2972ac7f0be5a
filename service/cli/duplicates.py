"""`pool5 duplicates`."""

from typing import Annotated

import typer

from service import logs
from service.cli.options import ENGINE, Json, SpaceName, console, print_json, takes_settings
from service.cli.progress import counted
from service.engine import Engine
from service.query import default_space
from service.settings import Settings


@takes_settings(*ENGINE)
def duplicates(
    settings: Settings,
    collection: Annotated[str, typer.Argument(help="name of a collection")],
    threshold: Annotated[
        float | None,
        typer.Option(help="cosine from which items are duplicates; by default equal files are"),
    ] = None,
    space: SpaceName = None,
    json: Json = False,
) -> None:
    """Find groups of items that duplicate each other."""
    logs.configure(settings.log_format, level=30)
    with Engine(settings) as engine, counted("comparing") as (progress, task):
        found = engine.catalog.collection(collection)
        groups = found.duplicates(
            threshold,
            space or default_space(found),
            lambda done, total: progress.update(task, completed=done, total=total),
        )
    if json:
        print_json(
            {"groups": [[{"id": m.id, "score": m.score} for m in group] for group in groups]}
        )
        return
    for group in groups:
        console.print(
            "  ".join(f"{m.id} ({m.score:.4f})" for m in group), markup=False, soft_wrap=True
        )
    console.print(f"{len(groups)} groups of {sum(map(len, groups))} items")
