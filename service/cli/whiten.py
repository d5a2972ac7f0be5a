"""`pool5 whiten`."""

from pathlib import Path
from typing import Annotated

import structlog
import typer

from models import Descriptors, SpecError, WhiteningFolder, parse, whitening
from service import logs
from service.cli.describing import extractor_of
from service.cli.options import Json, print_json, status, takes_settings
from service.cli.progress import counted, described
from service.engine import Engine
from service.evaluating.describing import Picture, describe_all
from service.indexing.folder import FolderSource
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
    name = str(spec)
    extractor = extractor_of(settings, [name], {spec.network: weights})
    source = FolderSource(folder.resolve(), [folder.resolve()], settings.max_picture_bytes)
    pictures = [Picture(entry.reference, entry.read) for entry in source.entries()]
    with counted(f"describing {folder}", len(pictures)) as (progress, task):
        found = describe_all(
            extractor,
            pictures,
            threads=settings.decode_threads,
            batch_size=settings.batch_size,
            progress=described(progress, task),
        )
    for failure in found.failed:
        logger.warning("picture left out", picture=failure.name, reason=failure.detail)
    if not found.kept.any():
        raise SpecError("spec-whitening-samples", f"there is no picture in {folder}")
    return f"{spec}@{extractor.spaces[name].weights.sha256}", found.vectors[name][found.kept]
