"""`pool5 quantise`."""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Annotated

import numpy as np
import numpy.typing as npt
import structlog
import typer
from PIL import Image

from index import Collection, Item
from models import Limits, PictureError, SpecError, Weights, decode, quantising
from models.preprocess import Pixels, prepare
from models.provenance import Provenance
from models.training import procedural
from service import logs
from service.cli.options import Json, print_json, status, takes_settings
from service.cli.progress import counted, transferred
from service.engine import Engine, weights_folder
from service.grids import picture_of
from service.indexing.folder import FolderSource
from service.indexing.source import SourceError
from service.problems import Problem
from service.settings import Settings

logger = structlog.get_logger(__name__)

MOST = 2048
"""Pictures that are held in memory at once: 300 MB of 224 pixels."""


@takes_settings("data", "device", "weights_dir", "weights_mirror", "offline")
def quantise(
    settings: Settings,
    network: Annotated[str, typer.Argument(help="such as resnet152")],
    weights: Annotated[str, typer.Option(help="weights to quantise")] = "auto",
    pictures: Annotated[Path | None, typer.Option(help="folder to calibrate on")] = None,
    collection: Annotated[
        str | None, typer.Option(help="calibrate on what it keeps of its pictures")
    ] = None,
    count: Annotated[
        int, typer.Option(help="pictures to calibrate and measure on", min=8, max=MOST)
    ] = 256,
    name: Annotated[str | None, typer.Option(help="name of the file that is made")] = None,
    json: Json = False,
) -> None:
    """Make int8 weights of a network: several times as fast on CPUs, at a loss that is measured.

    By default they are calibrated on procedural pictures; collections then choose them by name.
    """
    logs.configure(settings.log_format, level=30)
    if pictures and collection:
        raise SpecError("spec-invalid", "give --pictures or --collection, not both")
    with transferred("downloading weights") as downloading:
        folder = weights_folder(settings, downloading)
        source = folder.resolve(network, weights)
    if pictures:
        found, kind = _of_folder(settings, pictures), "a folder's own pictures"
    elif collection:
        found, kind = _of_collection(settings, collection), "a collection's own pictures"
    else:
        found, kind = _procedural(count), "procedural pictures"
    pixels = _prepared(found, source, count)
    with counted(f"quantising {network}") as (progress, task):
        made = quantising.quantise(
            source,
            pixels,
            kind,
            folder,
            name,
            lambda done, total: progress.update(task, completed=done, total=total),
        )
    if made.quantised:
        _say(made, made.quantised, json)


def _say(made: Weights, said: Provenance, json: bool) -> None:
    if json:
        print_json(
            {
                "network": made.network,
                "name": made.name,
                "sha256": made.sha256,
                "path": made.path,
                "source": said.source,
                "calibrated_on": said.calibrated_on,
                "pictures": said.pictures,
                "measured_on": said.measured_on,
                "spec": said.spec,
                "cosine_mean": round(said.cosine_mean, 5),
                "cosine_least": round(said.cosine_least, 5),
            }
        )
        return
    status.print(
        f"{made.name} is ready, calibrated on {said.pictures} pictures: {said.spec} has a cosine "
        f"of {said.cosine_mean:.4f} to {said.source}, at least {said.cosine_least:.4f} on "
        f"{said.measured_on} others",
        markup=False,
    )


def _prepared(found: Iterable[Image.Image], source: Weights, count: int) -> npt.NDArray[np.uint8]:
    with counted("preparing pictures", count) as (progress, task):
        rows: list[Pixels] = []
        for picture in islice(found, count):
            rows.append(prepare(picture, source.preprocessing))
            progress.advance(task)
    side = source.preprocessing.crop
    return np.stack(rows) if rows else np.empty((0, 3, side, side), np.uint8)


def _procedural(count: int) -> Iterator[Image.Image]:
    return (procedural.picture(family, n) for family, n in procedural.gallery_names(count))


def _of_folder(settings: Settings, folder: Path) -> Iterator[Image.Image]:
    source = FolderSource(folder.resolve(), [folder.resolve()], settings.max_picture_bytes)
    reads = ((entry.reference, entry.read) for entry in source.entries())
    return _decoded(settings, reads)


def _of_collection(settings: Settings, name: str) -> Iterator[Image.Image]:
    with Engine(settings) as engine:
        collection = engine.catalog.collection(name)
        reads = ((item.id, partial(picture_of, collection, item)) for item in _items(collection))
        yield from _decoded(settings, reads)


def _items(collection: Collection) -> Iterator[Item]:
    after = None
    while items := collection.items(after):
        yield from items
        after = items[-1].id


def _decoded(
    settings: Settings, reads: Iterable[tuple[str, Callable[[], bytes]]]
) -> Iterator[Image.Image]:
    """Pictures by name and how to read them; what cannot be had is left out, aloud."""
    limits = Limits(settings.max_picture_bytes, settings.max_pixels, settings.max_frames)
    for name, read in reads:
        try:
            yield decode(read(), limits).image
        except (PictureError, SourceError, Problem) as error:
            logger.warning("picture left out", picture=name, reason=str(error))
