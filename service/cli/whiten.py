"""`pool5 whiten`."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import numpy as np
import structlog
import typer

from models import (
    Descriptors,
    Extractor,
    PictureError,
    SpecError,
    WhiteningFolder,
    parse,
    whitening,
)
from service import logs
from service.cli.options import Json, print_json, status, takes_settings
from service.cli.progress import counted
from service.engine import Engine, weights_folder
from service.indexing.folder import FolderSource
from service.indexing.source import SourceError
from service.settings import Settings

logger = structlog.get_logger(__name__)


@takes_settings("data", "device", "weights_dir", "weights_mirror", "offline")
def whiten(
    settings: Settings,
    dim: Annotated[int, typer.Option(help="dimensions that are left", min=1)],
    folder: Annotated[Path | None, typer.Argument(help="pictures to fit it on")] = None,
    spec: Annotated[str | None, typer.Option(help="descriptor spec, with FOLDER")] = None,
    weights: Annotated[str, typer.Option(help="weights of the network, with FOLDER")] = "auto",
    collection: Annotated[str | None, typer.Option(help="fit it on a collection instead")] = None,
    space: Annotated[str, typer.Option(help="space, with --collection")] = "high",
    json: Json = False,
) -> None:
    """Fit a PCA-whitening on a folder or a collection; specs then name it as `…/pcaN`."""
    logs.configure(settings.log_format, level=30)
    if collection and not folder:
        base, descriptors = _of_collection(settings, collection, space)
    elif folder and spec and not collection:
        base, descriptors = _of_folder(settings, folder, spec, weights)
    else:
        raise SpecError("spec-invalid", "give FOLDER with --spec, or --collection with --space")
    fitted = whitening.fit(descriptors, dim, base)
    path = WhiteningFolder(settings.data / "whitenings").keep(fitted)
    spec_text = f"{base.split('@')[0]}/pca{dim}"
    if json:
        print_json(
            {"spec": spec_text, "sha256": fitted.sha256, "path": path, "pictures": len(descriptors)}
        )
    else:
        status.print(f"{spec_text} is ready, fitted on {len(descriptors)} pictures", markup=False)


def _of_collection(settings: Settings, name: str, space: str) -> tuple[str, Descriptors]:
    with Engine(settings) as engine:
        collection = engine.catalog.collection(name)
        collection.check_spaces([space])
        described = collection.spaces[space]
        if "/pca" in described.spec:
            raise SpecError(
                "spec-invalid", f"space {space!r} is whitened already: {described.spec}"
            )
        base = f"{described.spec}@{described.origin['weights_sha256']}"
        return base, collection.all_vectors(space)


def _of_folder(
    settings: Settings, folder: Path, text: str, weights: str
) -> tuple[str, Descriptors]:
    spec = parse(text).base
    extractor = Extractor(
        {"": str(spec)},
        weights=weights,
        folder=weights_folder(settings),
        device=settings.device,
    )
    rows = list(_rows(settings, extractor, folder))
    if not rows:
        raise SpecError("spec-whitening-samples", f"there is no picture in {folder}")
    return f"{spec}@{extractor.spaces[''].weights.sha256}", np.stack(rows)


def _rows(settings: Settings, extractor: Extractor, folder: Path) -> Iterator[Descriptors]:
    source = FolderSource(folder.resolve(), [folder.resolve()], settings.max_picture_bytes)
    with counted(f"describing {folder}", source.count()) as (progress, task):
        for entry in source.entries():
            try:
                yield np.asarray(extractor.describe([entry.read()]))[0]
            except (PictureError, SourceError) as error:
                logger.warning("picture left out", picture=entry.reference, reason=str(error))
            progress.advance(task)
