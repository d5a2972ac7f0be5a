"""`pool5 snapshot`, `restore`, `export`, `import`, `duplicates` as a script meets them."""

from pathlib import Path

import numpy as np
import pytest

from tests.index.making import units
from tests.pictures import encoded
from tests.service.test_cli import Command, parsed, pictures, pool5

__all__ = ["pictures", "pool5"]


def test_a_snapshot_is_restored_and_searched(
    pool5: Command, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool5("index", str(pictures))
    taken = parsed(pool5("snapshot", "--collection", "default", "--json"))
    assert taken["collections"] == {"default": 5}
    target = tmp_path / "restored"
    restored = parsed(pool5("restore", taken["folder"], "--data", str(target), "--json"))
    assert restored["collections"] == {"default": 5}
    monkeypatch.setenv("POOL5_DATA", str(target))
    found = parsed(pool5("search", str(pictures / "3.png"), "-k", "1", "--json"))
    assert found["neighbours"][0]["name"] == "3.png"
    again = pool5("restore", taken["folder"], "--data", str(target))
    assert (again.returncode, "not empty" in again.stderr) == (2, True)
    (Path(taken["folder"]) / "catalog.db").write_bytes(b"other")
    refused = pool5("restore", taken["folder"], "--data", str(tmp_path / "other"))
    assert refused.returncode == 2
    assert "catalog.db has other bytes; use another copy" in refused.stderr
    assert not (tmp_path / "other").exists()
    monkeypatch.setenv("POOL5_DATA", str(tmp_path / "nothing"))
    assert pool5("snapshot").returncode == 2


def test_what_is_exported_is_imported_into_another_collection(
    pool5: Command, pictures: Path, tmp_path: Path
) -> None:
    pool5("index", str(pictures))
    exported = parsed(pool5("export", "default", str(tmp_path / "out"), "--json"))
    assert exported["items"] == 5
    file = str(tmp_path / "out" / "items.parquet")
    assert parsed(pool5("import", "copy", file, "--json"))["added"] == 5
    assert parsed(pool5("import", "copy", file, "--json"))["unchanged"] == 5
    search = ["search", str(pictures / "3.png"), "--collection", "copy", "-k", "1", "--json"]
    assert parsed(pool5(*search))["neighbours"][0]["name"] == "3.png"
    again = pool5("export", "default", str(tmp_path / "out"))
    assert (again.returncode, "not empty" in again.stderr) == (2, True)


def test_arrays_make_a_collection_of_their_own(
    pool5: Command, pictures: Path, tmp_path: Path
) -> None:
    vectors = 2 * units(1, 6)
    np.save(tmp_path / "v.npy", vectors)
    (tmp_path / "ids.txt").write_text("a\nb\nc\nd\ne\nf\n")
    arguments = ["import", "foreign", str(tmp_path / "v.npy"), "--ids", str(tmp_path / "ids.txt")]
    refused = pool5(*arguments)
    assert (refused.returncode, "--normalise" in refused.stderr) == (2, True)
    assert "no collection" in pool5("duplicates", "foreign").stderr
    imported = pool5(*arguments, "--normalise")
    assert "6 of 6 rows had another norm than 1" in imported.stderr
    assert "6 added" in imported.stderr
    assert parsed(pool5(*arguments, "--normalise", "--json"))["unchanged"] == 6
    searched = pool5("search", str(pictures / "1.png"), "--collection", "foreign")
    assert (searched.returncode, "were imported" in searched.stderr) == (2, True)
    pool5("index", str(pictures))
    unsaid = pool5("import", "default", *arguments[2:])
    assert unsaid.returncode == 2
    assert pool5("import", "x", str(tmp_path / "v.npy")).returncode == 2
    assert pool5("import", "x", "missing.npy", "--ids", "ids.txt").returncode == 2


def test_duplicates_are_refused_and_found(pool5: Command, pictures: Path) -> None:
    (pictures / "same.png").write_bytes(encoded(3))
    indexed = parsed(pool5("index", str(pictures), "--duplicates", "reject", "--json"))
    assert (indexed["done"], indexed["failed"]) == (5, 1)
    indexed = parsed(pool5("index", str(pictures), "--json"))
    assert (indexed["done"], indexed["unchanged"], indexed["failed"]) == (6, 5, 0)
    (group,) = parsed(pool5("duplicates", "default", "--threshold", "0.99", "--json"))["groups"]
    assert [member["score"] for member in group] == [1.0, 1.0]
    assert "1 groups of 2 items" in pool5("duplicates", "default").stdout
    for wrong in (["--threshold", "2"], ["--threshold", "0.9", "--space", "none"]):
        assert pool5("duplicates", "default", *wrong).returncode == 2
    assert pool5("index", str(pictures), "--duplicates", "burn").returncode == 2
