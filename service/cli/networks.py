"""`pool5 networks`."""

from typing import Annotated

import typer
from rich.table import Table

from models import geometry, zoo
from service.cli.options import Json, console, print_json, takes_settings
from service.engine import weights_folder
from service.settings import Settings


@takes_settings("weights_dir")
def networks(
    settings: Settings,
    network: Annotated[str | None, typer.Argument(help="show the layers of this network")] = None,
    json: Json = False,
) -> None:
    """List the networks, or the layers of one."""
    if network:
        _layers(zoo.network(network), json)
        return
    folder = weights_folder(settings)
    rows = [zoo.network(name) for name in zoo.names()]
    if json:
        found = [
            {
                "name": row.name,
                "levels": dict(row.levels),
                "pinned": row.weights,
                "at_hand": folder.at_hand(row.name),
            }
            for row in rows
        ]
        print_json({"networks": found})
        return
    table = Table("network", "low", "mid", "high", "weights at hand", box=None)
    for row in sorted(rows, key=lambda row: not row.levels):
        levels = [row.levels.get(level, "") for level in zoo.LEVELS]
        table.add_row(row.name, *levels, ", ".join(folder.at_hand(row.name)))
    console.print(table)


def _layers(row: zoo.Network, json: bool) -> None:
    layers = geometry.layers(row.name)
    named = [layers[name] for name in row.layers or layers]
    if json:
        print_json({"name": row.name, "layers": [vars(layer) for layer in named]})
        return
    table = Table("layer", "node", "level", "channels", "stride", "receptive field", box=None)
    for layer in named:
        table.add_row(
            layer.name,
            layer.node,
            layer.level or "",
            str(layer.channels),
            str(layer.stride or ""),
            str(layer.receptive_field or "all"),
        )
    console.print(table)
