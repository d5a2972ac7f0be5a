"""From the description of a job, as the catalog keeps it, to the source that it reads."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from service.engine import Engine
from service.indexing.archive import ArchiveSource
from service.indexing.folder import FolderSource
from service.indexing.manifest import ManifestSource
from service.indexing.source import Source, never


def open_source(
    engine: Engine,
    description: Mapping[str, Any],
    check: Callable[[], None] = never,
    fetch: Callable[[str], bytes] | None = None,
) -> Source:
    """`{"folder": path}`, `{"manifest": path}` or `{"archive": path}`.

    Paths are read only under the allowed roots: the settings' own, and those that an operator at
    the command line named. `check` is called often while it is read, and may raise to end it;
    `fetch` is for pictures by URL, the engine's own without it. Raises SourceError where the source
    cannot be read at all.
    """
    roots = [*engine.settings.image_roots, *map(Path, description.get("roots", ()))]
    max_bytes = engine.settings.max_picture_bytes
    if "folder" in description:
        return FolderSource(Path(description["folder"]), roots, max_bytes, check)
    if "archive" in description:
        return ArchiveSource(Path(description["archive"]), max_bytes, check=check)
    return ManifestSource(
        Path(description["manifest"]),
        roots,
        fetch or engine.fetcher.fetch,
        uploaded=bool(description.get("uploaded")),
        max_bytes=max_bytes,
        check=check,
    )
