"""`pool5 export` and `pool5 import`: collections as files that other programs read and write."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from index import Catalog, Collection, CollectionError, importing
from service import logs
from service.cli.options import Json, print_json, status, takes_settings
from service.cli.progress import counted
from service.problems import Problem
from service.settings import Settings

NEW_SPACE = "high"
"""Name of the space of a collection that one array is imported into."""


@takes_settings("data")
def export(
    settings: Settings,
    collection: Annotated[str, typer.Argument(help="name of a collection")],
    folder: Annotated[Path, typer.Argument(help="where to: a folder that is missing or empty")],
    json: Json = False,
) -> None:
    """Write a collection as Parquet and as plain FAISS indexes with their ids."""
    logs.configure(settings.log_format, level=30)
    with Catalog.open(settings.data) as catalog, counted("exporting") as (progress, task):
        exported = catalog.collection(collection).export(
            folder, lambda done, total: progress.update(task, completed=done, total=total)
        )
    if json:
        print_json(asdict(exported))
    else:
        status.print(f"{exported.items} items are in {folder}", markup=False)


@takes_settings("data")
def import_(
    settings: Settings,
    collection: Annotated[str, typer.Argument(help="a collection, which is made if there is none")],
    vectors: Annotated[
        list[str],
        typer.Argument(help="a .npy of (n, dim), or SPACE=FILE for each space, or a .parquet"),
    ],
    ids: Annotated[
        Path | None,
        typer.Option(help="n ids: a text file, JSON Lines or a .npy; not for .parquet"),
    ] = None,
    metadata: Annotated[Path | None, typer.Option(help="JSON Lines: an object per row")] = None,
    own: Annotated[
        bool,
        typer.Option("--own", help="these are descriptors of the collection's own specs"),
    ] = False,
    normalise: Annotated[
        bool, typer.Option("--normalise", help="scale vectors to the L2 norm 1")
    ] = False,
    json: Json = False,
) -> None:
    """Import descriptors and ids; again, or after it was broken off: only what is new."""
    logs.configure(settings.log_format, level=30)
    with Catalog.open(settings.data) as catalog:
        there = catalog.collection(collection) if collection in catalog.names() else None
        rows = _rows(vectors, ids, metadata, there)
        settled = {"keep": "nothing", "index": {}, "keep_grids": []}
        target = there or catalog.create_collection(collection, importing.new_spaces(rows), settled)
        try:
            with counted("checking, importing") as (progress, task):
                imported = target.import_rows(
                    rows,
                    own=own,
                    normalise=normalise,
                    told=lambda done, total: progress.update(task, completed=done, total=total),
                )
        except CollectionError:
            if there is None and not target.count():
                catalog.drop_collection(collection)
            raise
        if target.needs_compaction():
            target.compact()
    if json:
        print_json(asdict(imported))
        return
    if imported.normalised:
        status.print(f"{imported.normalised} of {imported.rows} rows had another norm than 1")
    status.print(
        f"{imported.added} added, {imported.replaced} replaced, {imported.unchanged} unchanged"
    )


def _rows(
    vectors: Sequence[str], ids: Path | None, metadata: Path | None, there: Collection | None
) -> importing.Rows:
    """What the arguments name. Raises Problem: `request-invalid`."""
    if len(vectors) == 1 and Path(vectors[0]).suffix == ".parquet":
        if ids or metadata:
            raise Problem("request-invalid", "a .parquet has ids and metadata of its own")
        return importing.ParquetRows(Path(vectors[0]))
    if ids is None:
        raise Problem("request-invalid", "name the ids of the rows: --ids FILE")
    only = next(iter(there.spaces)) if there and len(there.spaces) == 1 else NEW_SPACE
    arrays: dict[str, Path] = {}
    for text in vectors:
        space, _, file = ("", "", text) if Path(text).exists() else text.rpartition("=")
        arrays[space or only] = Path(file)
    if len(arrays) < len(vectors):
        raise Problem("request-invalid", "name the space of each file: SPACE=FILE")
    return importing.ArrayRows(arrays, ids, metadata)
