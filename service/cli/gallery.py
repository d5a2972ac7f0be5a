"""`pool5 gallery`."""

from pathlib import Path
from typing import Annotated

import typer

from models.training.procedural import render_gallery
from service.cli.options import status
from service.cli.progress import counted


def gallery(
    folder: Annotated[Path, typer.Argument(help="where to put the pictures")],
    count: Annotated[int, typer.Option(help="how many", min=1)] = 300,
) -> None:
    """Render procedural pictures in families: something to search in when there is nothing else."""
    render(folder, count)
    status.print(f"{count} pictures are in {folder}", markup=False)


def render(folder: Path, count: int) -> None:
    """Render what is not there yet, with a progress bar."""
    with counted("rendering a gallery", count) as (progress, task):
        render_gallery(
            folder, count, progress=lambda done, _: progress.update(task, completed=done)
        )
