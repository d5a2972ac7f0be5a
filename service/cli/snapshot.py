"""`pool5 snapshot` and `pool5 restore`."""

from pathlib import Path
from typing import Annotated

import typer

from index import CollectionError, restoring
from service import logs
from service.cli.options import ENGINE, Json, print_json, status, takes_settings
from service.cli.progress import counted
from service.engine import Engine
from service.schemas.snapshots import SnapshotBody
from service.settings import Settings


@takes_settings(*ENGINE)
def snapshot(
    settings: Settings,
    collection: Annotated[
        str | None, typer.Option(help="take only this collection; by default all")
    ] = None,
    json: Json = False,
) -> None:
    """Take a consistent snapshot, also while the service runs: under `snapshots` of the data."""
    logs.configure(settings.log_format, level=30)
    if not (settings.data / "catalog.db").exists():
        raise CollectionError(
            "catalog-missing", f"there is nothing in {settings.data}: name the folder with --data"
        )
    with Engine(settings) as engine, counted("taking files") as (progress, task):
        taken = engine.take_snapshot(collection, lambda n: progress.update(task, completed=n))
    folder = settings.data / "snapshots" / taken.name
    if json:
        about = SnapshotBody.model_validate(taken, from_attributes=True)
        print_json(about.model_dump(mode="json") | {"folder": str(folder)})
    else:
        status.print(
            f"{taken.files} files with {taken.bytes:,} bytes are in {folder}; most are hard links: "
            "copy the folder to another disk to have a backup",
            markup=False,
        )


@takes_settings("data")
def restore(
    settings: Settings,
    snapshot: Annotated[Path, typer.Argument(help="folder of a snapshot")],
    json: Json = False,
) -> None:
    """Restore a snapshot into --data, which must be empty; every checksum is verified before."""
    with counted("verifying, copying") as (progress, task):
        restored = restoring.restore(
            snapshot,
            settings.data,
            lambda done, total: progress.update(task, completed=done, total=total),
        )
    if json:
        print_json(
            {"data": str(settings.data), "snapshot": restored.name}
            | {"collections": dict(restored.collections)}
        )
    else:
        items = sum(restored.collections.values())
        status.print(
            f"{items} items of {len(restored.collections)} collections are in {settings.data}; "
            f"jobs that had not ended are cancelled. `pool5 serve --data {settings.data}`",
            markup=False,
        )
