"""`pool5 weights pull|verify`."""

from typing import Annotated

import typer
from rich.table import Table

from service import logs
from service.cli.options import Json, console, print_json, status, takes_settings
from service.cli.progress import transferred
from service.engine import weights_folder
from service.settings import Settings

app = typer.Typer(no_args_is_help=True, help="Fetch and check weights.")

_FOLDER = ("weights_dir", "weights_mirror", "offline")


@app.command()
@takes_settings(*_FOLDER)
def pull(
    settings: Settings,
    network: Annotated[str, typer.Argument(help="such as resnet152")],
    name: Annotated[str | None, typer.Option(help="such as imagenet1k_v2")] = None,
    json: Json = False,
) -> None:
    """Download the weights of a network, or go on with a download that was interrupted."""
    logs.configure(settings.log_format, level=30)
    folder = weights_folder(settings)
    with transferred(network) as progress:
        pulled = folder.pull(network, name, progress)
    if json:
        print_json(
            {"network": network, "name": pulled.name, "sha256": pulled.sha256, "path": pulled.path}
        )
    else:
        status.print(f"{pulled.path or pulled.name} (SHA-256 {pulled.sha256})", markup=False)


@app.command()
@takes_settings(*_FOLDER)
def verify(settings: Settings, json: Json = False) -> None:
    """Check every weights file against its pinned SHA-256; exit status 1 if one differs."""
    found = weights_folder(settings).verify()
    if json:
        print_json({"files": [vars(file) for file in found]})
    else:
        table = Table("file", "status", "SHA-256", box=None)
        for file in found:
            table.add_row(file.file, file.status, file.sha256 or "")
        console.print(table)
    if any(file.status in ("changed", "missing") for file in found):
        raise typer.Exit(1)
