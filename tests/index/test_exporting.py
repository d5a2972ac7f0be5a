"""What is exported is read by pyarrow alone and by faiss alone, and comes back as it was."""

import hashlib
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import faiss
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from index import Catalog, Collection, CollectionError, exporting
from index.importing import ParquetRows, new_spaces
from tests.index.making import HIGH, LOW, content, new_item, stored, unit

WITHOUT_POOL5 = """
import json, sys
import faiss, numpy as np, pyarrow.parquet as pq
folder = sys.argv[1]
table = pq.read_table(f"{folder}/items.parquet")
index, ids = faiss.read_index(f"{folder}/high.faiss"), np.load(f"{folder}/ids.npy")
vectors = np.stack(table["descriptor_high"].to_numpy())
scores, places = index.search(vectors, 1)
assert (ids[places[:, 0]] == table["id"].to_numpy()).all()
assert "pool5" not in sys.modules and "index" not in sys.modules
told = {"columns": table.column_names, "rows": table.num_rows, "least": float(scores.min())}
print(json.dumps(told))
"""


@pytest.fixture
def full(both: Collection, monkeypatch: pytest.MonkeyPatch) -> Collection:
    """Twenty items of two spaces, one replaced and one removed, in row groups of a few."""
    monkeypatch.setattr(exporting, "GROUP_BYTES", 7 * 4 * (HIGH.dim + LOW.dim))
    both.add([new_item(f"i{n}", n, {"n": n, "text": "Größe"}, HIGH, LOW) for n in range(20)])
    both.compact()
    both.add([new_item("i3", 300, {"n": 3}, HIGH, LOW), new_item("ünï", 400, None, HIGH, LOW)])
    both.remove(["i5"])
    return both


def test_others_read_it_without_pool5(full: Collection, tmp_path: Path) -> None:
    full.export(tmp_path / "out")
    command = [sys.executable, "-c", WITHOUT_POOL5, str(tmp_path / "out")]
    told = json.loads(subprocess.run(command, check=True, capture_output=True, cwd="/").stdout)
    assert told["rows"] == 20
    assert told["columns"] == [
        "id", "sha256", "name", "source", "metadata", "width", "height", "added_at",
        "descriptor_high", "descriptor_low",
    ]  # fmt: skip
    assert told["least"] > 0.999


def test_every_row_is_what_the_catalog_has(full: Collection, tmp_path: Path) -> None:
    exported = full.export(tmp_path / "out")
    table = pq.read_table(tmp_path / "out" / "items.parquet")
    assert table.schema.field("descriptor_high").type == pa.list_(pa.float32(), HIGH.dim)
    rows = {row["id"]: row for row in table.to_pylist()}
    items = full.items(limit=100)
    assert len(items) == exported.items == 20
    assert [row["id"] for row in rows.values()][-2:] == ["i3", "ünï"]
    for item in items:
        row = rows[item.id]
        assert json.loads(row["metadata"]) == item.metadata
        for name in ("sha256", "name", "source", "width", "height"):
            assert row[name] == getattr(item, name)
        assert abs((row["added_at"] - item.added_at).total_seconds()) < 1e-5
        for space in (HIGH, LOW):
            np.testing.assert_array_equal(
                np.float32(row[f"descriptor_{space.name}"]), full.vectors([item.id], space.name)[0]
            )
    np.testing.assert_array_equal(np.float32(rows["i7"]["descriptor_high"]), stored(unit(7)))
    assert pq.ParquetFile(tmp_path / "out" / "items.parquet").num_row_groups == 3


def test_the_faiss_files_hold_the_stored_numbers(full: Collection, tmp_path: Path) -> None:
    full.export(tmp_path / "out")
    ids = np.load(tmp_path / "out" / "ids.npy", allow_pickle=False).tolist()
    for space in (HIGH, LOW):
        index = faiss.read_index(str(tmp_path / "out" / f"{space.name}.faiss"))
        assert (index.ntotal, index.d) == (20, space.dim)
        expected = full.vectors(ids, space.name)
        np.testing.assert_array_equal(index.reconstruct_n(0, 20), expected)


def test_the_checksums_are_those_of_the_files(full: Collection, tmp_path: Path) -> None:
    full.export(tmp_path / "out")
    said = json.loads((tmp_path / "out" / "export.json").read_text())
    there = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in (tmp_path / "out").iterdir()
        if path.name != "export.json"
    }
    assert said["files"] == there
    assert said["spaces"]["high"]["fingerprint"] == HIGH.fingerprint
    assert (said["collection"], said["items"]) == ("both", 20)


def test_it_is_of_one_instant(full: Collection, tmp_path: Path) -> None:
    def change(done: int, total: int) -> None:
        full.remove(["i1", "i2"])
        full.add([new_item(f"late-{done}", 900 + done, None, HIGH, LOW)])

    full.export(tmp_path / "out", change)
    ids = np.load(tmp_path / "out" / "ids.npy").tolist()
    assert len(ids) == 20
    assert {"i1", "i2"} <= set(ids)
    assert faiss.read_index(str(tmp_path / "out" / "low.faiss")).ntotal == 20


def test_it_comes_back_as_it_was(full: Collection, tmp_path: Path) -> None:
    full.export(tmp_path / "out")
    rows = ParquetRows(tmp_path / "out" / "items.parquet")
    with Catalog.open(tmp_path / "again") as catalog:
        again = catalog.create_collection("again", new_spaces(rows), {})
        imported = again.import_rows(rows)
        assert (imported.added, imported.unchanged) == (20, 0)
        assert again.spaces == full.spaces
        before = {item.id: (item.sha256, item.name, item.metadata) for item in full.items()}
        assert {i.id: (i.sha256, i.name, i.metadata) for i in again.items()} == before
        ids = sorted(before)
        for space in ("high", "low"):
            np.testing.assert_array_equal(again.vectors(ids, space), full.vectors(ids, space))
        assert again.import_rows(rows).unchanged == 20


def test_an_empty_collection_is_exported_too(collection: Collection, tmp_path: Path) -> None:
    collection.export(tmp_path / "out")
    assert pq.read_table(tmp_path / "out" / "items.parquet").num_rows == 0
    assert np.load(tmp_path / "out" / "ids.npy", allow_pickle=False).shape == (0,)
    assert faiss.read_index(str(tmp_path / "out" / "high.faiss")).ntotal == 0


def test_a_folder_that_is_not_empty_is_left_as_it_is(
    collection: Collection, tmp_path: Path
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "letter").touch()
    with pytest.raises(CollectionError) as refused:
        collection.export(tmp_path / "out")
    assert refused.value.code == "export-not-empty"
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["letter"]
    (tmp_path / "empty").mkdir()
    collection.export(tmp_path / "empty")


def test_other_fingerprints_are_refused_whatever_is_said(
    collection: Collection, tmp_path: Path
) -> None:
    collection.add([new_item("a", 1, sha256=content(1))])
    collection.export(tmp_path / "out")
    rows = ParquetRows(tmp_path / "out" / "items.parquet")
    with Catalog.open(tmp_path / "other") as catalog:
        other = catalog.create_collection("other", [replace(HIGH, fingerprint="a" * 64)], {})
        with pytest.raises(CollectionError) as refused:
            other.import_rows(rows, own=True)
        assert refused.value.code == "collection-fingerprint-differs"


def test_a_parquet_file_of_others_is_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"id": ["a"]}), tmp_path / "other.parquet")
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 broken PAR1")
    for name in ("other", "broken", "missing"):
        with pytest.raises(CollectionError) as refused:
            ParquetRows(tmp_path / f"{name}.parquet")
        assert refused.value.code == "import-invalid"


def test_an_export_removes_nothing_of_others_and_goes_into_the_folder_one_is_in(
    collection: Collection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out.aside").mkdir()
    (tmp_path / "out.aside" / "letter").touch()
    monkeypatch.chdir(tmp_path / "out")
    collection.export(".")
    assert (tmp_path / "out" / "items.parquet").is_file()
    assert (tmp_path / "out.aside" / "letter").exists()
    assert not list(tmp_path.glob(".out.*"))
