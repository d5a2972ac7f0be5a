"""What took long to find out, on disk, so that a restart has it: a cache, always rebuildable.

Compiled networks, and the layers of networks that were traced. An artefact is a folder named for
the SHA-256 of everything it depends on, with its bytes and what is known of them, their checksum
among that. It is made aside and renamed. Who may write here may run code as us: the folder is
ours alone.
"""

import hashlib
import json
import logging
import mmap
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import platformdirs

logger = logging.getLogger(__name__)

BLOB = "artefact"
FACTS = "facts.json"
MOST_BYTES = 8 * 2**30
"""What all artefacts together may take; the one not used for longest goes first."""


def default_folder() -> Path:
    """`POOL5_CACHE_DIR`, else the user's cache folder."""
    named = os.environ.get("POOL5_CACHE_DIR")
    return Path(named) if named else platformdirs.user_cache_path("pool5")


def key_of(facts: Mapping[str, Any]) -> str:
    """SHA-256 (hex) of what an artefact depends on."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Artefact:
    """Its bytes, mapped into memory rather than read, and what is known of them."""

    blob: memoryview
    facts: Mapping[str, Any]


class Artefacts:
    """A folder of them; several processes may share it."""

    def __init__(self, folder: Path, most_bytes: int = MOST_BYTES) -> None:
        self.folder = folder / "artefacts"
        self._most_bytes = most_bytes

    def find(self, key: str) -> Artefact | None:
        """What is kept under this key; None where there is none, or where it was damaged."""
        place = self.folder / key
        try:
            facts = json.loads((place / FACTS).read_text())
            with (place / BLOB).open("rb") as stream:
                # Writable, as OpenVINO asks for it; nobody writes, so nothing is copied.
                blob = memoryview(mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_COPY))
            os.utime(place)
        except (OSError, ValueError):
            return None
        if hashlib.sha256(blob).hexdigest() != facts.get("sha256"):
            logger.warning("an artefact was damaged and is made anew: %s", place)
            return None
        return Artefact(blob, facts)

    def keep(self, key: str, blob: bytes | memoryview, facts: Mapping[str, Any]) -> None:
        """Keep one; a disk that does not take it costs only the next start."""
        told = {**facts, "sha256": hashlib.sha256(blob).hexdigest()}
        aside = None
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            aside = Path(tempfile.mkdtemp(dir=self.folder))
            (aside / BLOB).write_bytes(blob)
            (aside / FACTS).write_text(json.dumps(told, indent=1))
            shutil.rmtree(self.folder / key, ignore_errors=True)
            aside.rename(self.folder / key)
            self._bound()
        except OSError as error:
            logger.warning("an artefact is not kept in %s: %s", self.folder, error)
        finally:
            if aside:
                shutil.rmtree(aside, ignore_errors=True)

    def _bound(self) -> None:
        """Remove what was not used for longest, until the rest is within bounds."""
        kept = sorted(
            (place for place in self.folder.iterdir() if place.is_dir()),
            key=lambda place: place.stat().st_mtime,
            reverse=True,
        )
        total = 0
        for nth, place in enumerate(kept):
            total += sum(file.stat().st_size for file in place.iterdir())
            if nth and total > self._most_bytes:
                shutil.rmtree(place, ignore_errors=True)
