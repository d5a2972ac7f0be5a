"""From the description of a job, as the catalog keeps it, to the source that it reads."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from service.engine import Engine
from service.indexing.archive import ArchiveSource
from service.indexing.folder import FolderSource
from service.indexing.manifest import ManifestSource
from service.indexing.source import Source


def open_source(engine: Engine, description: Mapping[str, Any]) -> Source:
    """`{"folder": path}`, `{"manifest": path}` or `{"archive": path}`.

    Paths are read only under the allowed roots: the settings' own, and those that an operator at
    the command line named. Raises SourceError where the source cannot be read at all.
    """
    roots = [*engine.settings.image_roots, *map(Path, description.get("roots", ()))]
    max_bytes = engine.settings.max_picture_bytes
    if "folder" in description:
        return FolderSource(Path(description["folder"]), roots, max_bytes)
    if "archive" in description:
        return ArchiveSource(Path(description["archive"]), max_bytes)
    return ManifestSource(
        Path(description["manifest"]),
        roots,
        engine.fetcher.fetch,
        uploaded=bool(description.get("uploaded")),
        max_bytes=max_bytes,
    )
