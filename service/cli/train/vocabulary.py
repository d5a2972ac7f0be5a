"""`pool5 train vocabulary`."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import structlog
import torch
import typer

from models import Descriptors, Limits, PictureError, decode, zoo
from models.download import hash_of
from models.handmade import sift
from models.preprocess import prepare
from service import logs, vocabulary
from service.cli.options import Json, print_json, status, takes_settings
from service.cli.progress import counted
from service.engine import weights_folder
from service.indexing.folder import FolderSource
from service.indexing.source import SourceError
from service.settings import Settings

logger = structlog.get_logger(__name__)

MOST_PICTURES = 500
"""Spread over the folder: enough for 1024 words, in 500 MB."""


@takes_settings("weights_dir", "max_picture_bytes", "max_pixels", "max_frames")
def train_vocabulary(
    settings: Settings,
    folder: Annotated[Path, typer.Argument(help="pictures to fit it on")],
    output: Annotated[
        Path | None, typer.Option(help="file to write; by default one in the weights folder")
    ] = None,
    json: Json = False,
) -> None:
    """Fit the vocabulary of `sift` on a folder of pictures; `--weights FILE` then uses it."""
    logs.configure(settings.log_format, level=30)
    described = list(_described(settings, folder))
    path = output or weights_folder(settings).folder / f"sift-{folder.resolve().name}.safetensors"
    vocabulary.save(vocabulary.fit(described), path)
    digest = hash_of(path)
    if json:
        print_json({"path": path, "sha256": digest, "pictures": len(described)})
    else:
        said = f"{path} (SHA-256 {digest}), fitted on {len(described)} pictures"
        status.print(said, markup=False, soft_wrap=True)


def _described(settings: Settings, folder: Path) -> Iterator[Descriptors]:
    """The local descriptors, n×128, of at most MOST_PICTURES pictures."""
    how = zoo.native_preprocessing(zoo.network(vocabulary.NETWORK))
    limits = Limits(settings.max_picture_bytes, settings.max_pixels, settings.max_frames)
    source = FolderSource(folder.resolve(), [folder.resolve()], settings.max_picture_bytes)
    total = source.count()
    wanted = {n * total // MOST_PICTURES for n in range(MOST_PICTURES)} if total else set()
    with counted(f"describing {folder}", len(wanted)) as (progress, task):
        for at, entry in enumerate(source.entries()):
            if at not in wanted:
                continue
            try:
                image = decode(entry.read(), limits, 2 * how.resize).image
                yield sift.describe(sift.grey(torch.from_numpy(prepare(image, how))))[0]
            except (PictureError, SourceError) as error:
                logger.warning("picture left out", picture=entry.reference, reason=str(error))
            progress.advance(task)
