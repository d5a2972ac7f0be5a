"""`pool5 describe`."""

from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from models import Extractor, Limits, WhiteningFolder
from service import logs
from service.cli.options import Json, print_json, status, takes_settings
from service.engine import weights_folder
from service.settings import Settings


@takes_settings(
    "data", "device", "weights_dir", "weights_mirror", "offline", "network", "max_pixels"
)
def describe(
    settings: Settings,
    pictures: Annotated[list[Path], typer.Argument(help="pictures to describe")],
    spec: Annotated[
        str | None, typer.Option(help="descriptor spec; by default what suits the weights best")
    ] = None,
    weights: Annotated[str, typer.Option(help="weights of the network")] = "auto",
    output: Annotated[Path | None, typer.Option(help="write n×dim float32 as .npy")] = None,
    json: Json = False,
) -> None:
    """Compute the descriptors of pictures."""
    logs.configure(settings.log_format, level=30)
    folder = weights_folder(settings)
    extractor = Extractor(
        {"": spec or folder.resolve(settings.network, weights).best_spec},
        weights=weights,
        folder=folder,
        whitenings=WhiteningFolder(settings.data / "whitenings"),
        device=settings.device,
        limits=Limits(max_pixels=settings.max_pixels),
    )
    space = extractor.spaces[""]
    for notice in extractor.notices:
        status.print(notice, markup=False)
    descriptors = np.asarray(extractor.describe(pictures))
    if output:
        np.save(output, descriptors)
    elif json:
        print_json(
            {
                "spec": str(space.spec),
                "fingerprint": space.fingerprint,
                "dim": space.dim,
                "weights": space.weights.name,
                "descriptors": descriptors.tolist(),
            }
        )
    else:
        for row in descriptors:
            typer.echo(" ".join(f"{value:.6g}" for value in row))
