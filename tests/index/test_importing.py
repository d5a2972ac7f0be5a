"""Descriptors from elsewhere come in whole or not at all, and never unsaid."""

import hashlib
import json
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from index import Catalog, Collection, CollectionError, importing
from index.importing import ArrayRows, new_spaces
from tests.index.making import DIM, HIGH, LOW, unit, units

N = 25


class Files:
    """The files of one import."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.vectors = units(1, N)

    def array(self, array: Any = None, name: str = "v.npy", **kwargs: Any) -> Path:
        np.save(self.folder / name, self.vectors if array is None else array, **kwargs)
        return self.folder / name

    def text(self, text: str, name: str = "ids.txt") -> Path:
        (self.folder / name).write_text(text)
        return self.folder / name

    def ids(self, count: int = N) -> Path:
        return self.text("".join(f"i{n}\n" for n in range(count)))

    def rows(self, array: Any = None) -> ArrayRows:
        return ArrayRows({"high": self.array(array)}, self.ids())


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Files:
    monkeypatch.setattr(importing, "MOST_IN_BATCH", 4)
    return Files(tmp_path)


def refusal(collection: Collection, rows: ArrayRows, **asked: Any) -> CollectionError:
    """What an import is refused with; nothing of it is there then."""
    before = collection.count()
    with pytest.raises(CollectionError) as refused:
        collection.import_rows(rows, **{"own": True, **asked})
    assert collection.count() == before
    return refused.value


def test_imported_items_are_searched_like_any_other(collection: Collection, files: Files) -> None:
    metadata = files.text("".join(json.dumps({"n": n}) + "\n" for n in range(N)), "m.jsonl")
    rows = ArrayRows({"high": files.array()}, files.ids(), metadata)
    imported = collection.import_rows(rows, own=True)
    assert (imported.rows, imported.added, imported.normalised) == (N, N, 0)
    for n in (0, 7, N - 1):
        assert collection.search(files.vectors[n], 1)[0].id == f"i{n}"
    found = collection.search(files.vectors[7], 5, filter={"n": {"in": [7, 8]}})
    assert {one.id for one in found} == {"i7", "i8"}
    item = collection.get("i7")
    assert (item.width, item.height, item.source, item.name) == (0, 0, "import:v.npy", "i7")
    assert item.sha256 == hashlib.sha256(files.vectors[7].astype("<f4").tobytes()).hexdigest()


def test_ids_come_in_several_forms(collection: Collection, files: Files) -> None:
    names = [f"ä{n} b" for n in range(N)]
    objects = [json.dumps({"id": name, "other": 1}) for name in names]
    for ids in (
        files.text("\r\n".join(names) + "\r\n"),
        files.text("\n".join(map(json.dumps, names)), "texts.jsonl"),
        files.text("\n".join(objects), "objects.jsonl"),
        files.array(np.array(names), "ids.npy"),
    ):
        collection.import_rows(ArrayRows({"high": files.array()}, ids), own=True)
        assert {item.id for item in collection.items(limit=100)} == set(names)
        collection.remove(names)


def test_other_floats_are_converted(collection: Collection, files: Files) -> None:
    for dtype in ("float16", "float64", ">f4"):
        collection.import_rows(files.rows(files.vectors.astype(dtype)), own=True)
        found = collection.vectors(["i3"], "high")[0]
        np.testing.assert_allclose(found, files.vectors[3], atol=1e-3)
        collection.remove([f"i{n}" for n in range(N)])


def test_again_nothing_is_new_and_a_broken_off_import_goes_on(
    collection: Collection, files: Files
) -> None:
    class Killed(Exception):
        pass

    def stop(done: int, total: int) -> None:
        if done >= N + 8:
            raise Killed

    with pytest.raises(Killed):
        collection.import_rows(files.rows(), own=True, told=stop)
    assert 0 < collection.count() < N
    before = collection.count()
    imported = collection.import_rows(files.rows(), own=True)
    assert (imported.added, imported.unchanged) == (N - before, before)
    assert collection.import_rows(files.rows(), own=True).unchanged == N
    changed = files.vectors.copy()
    changed[3] = unit(999)
    imported = collection.import_rows(files.rows(changed), own=True)
    assert (imported.replaced, imported.unchanged) == (1, N - 1)


def test_whose_descriptors_they_are_must_be_said(collection: Collection, files: Files) -> None:
    refused = refusal(collection, files.rows(), own=False)
    assert refused.code == "import-unconfirmed"
    assert HIGH.fingerprint in str(refused)


def test_a_new_collection_takes_what_nothing_is_known_of(catalog: Catalog, files: Files) -> None:
    rows = files.rows()
    made = catalog.create_collection("new", new_spaces(rows), {})
    assert made.import_rows(rows).added == N  # the very rows that it was made for
    assert made.spaces["high"].spec == "imported"
    other = files.rows(units(2, N))
    assert refusal(made, other, own=False).code == "import-unconfirmed"
    assert new_spaces(other)[0].fingerprint != made.spaces["high"].fingerprint


def test_several_spaces_come_together(both: Collection, files: Files) -> None:
    low = files.array(units(3, N, LOW.dim), "low.npy")
    rows = ArrayRows({"high": files.array(), "low": low}, files.ids())
    both.import_rows(rows, own=True)
    np.testing.assert_array_equal(both.vectors(["i4"], "low")[0], units(3, N, LOW.dim)[4])
    alone = ArrayRows({"high": files.array()}, files.ids())
    assert refusal(both, alone).code == "import-spaces-differ"
    short = files.array(units(3, N - 1, LOW.dim), "low.npy")
    with pytest.raises(CollectionError, match=f"{N - 1} rows"):
        ArrayRows({"high": files.array(), "low": short}, files.ids())


def spoiled(files: Files, at: int, value: Any) -> ArrayRows:
    vectors = files.vectors.copy()
    vectors[at] = value
    return files.rows(vectors)


def test_vectors_that_are_none_are_refused_by_row(collection: Collection, files: Files) -> None:
    for value, code, said in (
        (np.nan, "descriptor-invalid", "not finite"),
        (np.inf, "descriptor-invalid", "not finite"),
        (0, "descriptor-zero", "zero everywhere"),
        (1, "descriptor-invalid", "--normalise"),
    ):
        refused = refusal(collection, spoiled(files, 22, value))
        assert refused.code == code
        assert said in str(refused)
        assert "row 22 (id 'i22')" in str(refused)


def test_normalising_is_done_when_asked_and_counted(collection: Collection, files: Files) -> None:
    vectors = files.vectors * np.where(np.arange(N) < 3, 1, 5)[:, None]
    imported = collection.import_rows(files.rows(vectors), own=True, normalise=True)
    assert imported.normalised == N - 3
    found = collection.search(files.vectors[9], 1)[0]
    assert (found.id, found.score) == ("i9", pytest.approx(1, abs=1e-3))


def test_arrays_of_other_shapes_and_kinds_are_refused(collection: Collection, files: Files) -> None:
    for array in (
        units(1, N, DIM + 1),
        np.ones(N, dtype=np.float32),
        np.ones((N, DIM, 1), dtype=np.float32),
        np.ones((N, DIM), dtype=np.int32),
        np.ones((N, 0), dtype=np.float32),
        np.array([["a"] * DIM] * N),
    ):
        with pytest.raises(CollectionError) as refused:
            collection.import_rows(files.rows(array), own=True)
        assert refused.value.code in ("import-invalid", "import-spaces-differ")
    assert collection.count() == 0


class Bomb:
    def __reduce__(self) -> Any:
        return os.system, ("touch exploded",)


def test_nothing_is_unpickled(
    files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, collection: Collection
) -> None:
    monkeypatch.chdir(tmp_path)
    objects = np.array([[Bomb()]], dtype=object)
    (tmp_path / "plain.npy").write_bytes(pickle.dumps(Bomb()))
    for path in (files.array(objects, "object.npy"), tmp_path / "plain.npy"):
        with pytest.raises(CollectionError) as refused:
            ArrayRows({"high": path}, files.ids())
        assert refused.value.code == "import-invalid"
    rows = ArrayRows({"high": files.array()}, files.array(objects[0], "ids.npy"))
    assert refusal(collection, rows).code == "import-invalid"
    assert not (tmp_path / "exploded").exists()


def test_a_header_that_promises_more_than_there_is_allocates_nothing(
    files: Files, tmp_path: Path
) -> None:
    path = files.array()
    raw = path.read_bytes().replace(b"(25, 16)", b"(9999999999, 16)")
    path.write_bytes(raw)
    with pytest.raises(CollectionError) as refused:
        ArrayRows({"high": path}, files.ids())
    assert refused.value.code == "import-invalid"
    (tmp_path / "archive.npy").write_bytes(b"PK\x03\x04" + bytes(100))
    with pytest.raises(CollectionError):
        ArrayRows({"high": tmp_path / "archive.npy"}, files.ids())


def test_ids_that_do_not_fit_are_refused(collection: Collection, files: Files) -> None:
    for name, text, code in (
        ("ids.txt", "a\nb\n", "import-invalid"),
        ("ids.txt", "".join(f"i{n}\n" for n in range(N + 1)), "import-invalid"),
        ("ids.txt", "same\n" * N, "import-invalid"),
        ("ids.txt", "a/b\n" * N, "item-id-invalid"),
        ("ids.txt", "\n" * N, "item-id-invalid"),
        ("ids.txt", "x" * 1_000_000, "import-invalid"),
        ("ids.jsonl", "[1]\n" * N, "import-invalid"),
        ("ids.jsonl", "{\n" * N, "import-invalid"),
        ("ids.jsonl", "[" * 100_000, "import-invalid"),
    ):
        rows = ArrayRows({"high": files.array()}, files.text(text, name))
        assert refusal(collection, rows).code == code


def test_metadata_that_do_not_fit_are_refused(collection: Collection, files: Files) -> None:
    for text, code in (
        ("{}\n" * (N - 1), "import-invalid"),
        ("{}\n" * (N + 1), "import-invalid"),
        ("[]\n" * N, "import-invalid"),
        (('{"a": "' + "x" * 70_000 + '"}\n') * N, "metadata-invalid"),
    ):
        rows = ArrayRows({"high": files.array()}, files.ids(), files.text(text, "m.jsonl"))
        assert refusal(collection, rows).code == code
