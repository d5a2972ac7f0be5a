"""A catalog in a folder of its own."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from index import Catalog, Collection
from tests.index.making import HIGH, LOW


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    with Catalog.open(tmp_path / "data") as opened:
        yield opened


@pytest.fixture
def collection(catalog: Catalog) -> Collection:
    """Of one space."""
    return catalog.create_collection("shoes", [HIGH], {})


@pytest.fixture
def both(catalog: Catalog) -> Collection:
    """Of two spaces."""
    return catalog.create_collection("both", [HIGH, LOW], {})
