"""What a job reads of a manifest: JSON Lines and CSV, line by line."""

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from service.fetch import Fetcher
from service.indexing.manifest import ManifestSource
from service.indexing.source import Entry, SourceError, stable_id

OFFLINE = Fetcher(offline=True).fetch


def jsonl(*rows: object) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def write(path: Path, content: str | bytes = "picture") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def entries(
    folder: Path,
    content: str | bytes,
    fetch: Callable[[str], bytes] = OFFLINE,
    **options: Any,
) -> list[Entry]:
    """Entries of a manifest in a root; their references are unique and as many as counted."""
    path = write(folder / "manifest", content)
    source = ManifestSource(path, [folder], fetch, **options)
    listed = list(source.entries())
    assert source.count() == len(listed) == len({entry.reference for entry in listed})
    return listed


def code_of(entry: Entry) -> str:
    with pytest.raises(SourceError) as caught:
        entry.read()
    assert caught.value.detail
    return caught.value.code


def test_a_path_with_everything_said_about_it(tmp_path: Path) -> None:
    path = write(tmp_path / "shoes" / "a.jpg")
    row = {"path": "shoes/a.jpg", "id": "sku-1", "name": "A", "metadata": {"price": 5}, "new": True}
    [entry] = entries(tmp_path, jsonl(row))
    assert (entry.item_id, entry.name) == ("sku-1", "A")
    assert entry.metadata == {"price": 5, "new": True}
    assert entry.reference == "line 1: shoes/a.jpg"
    assert entry.source == f"file:{path}"
    assert (entry.stamp or "").startswith(f"{path.stat().st_mtime_ns}:7:")
    assert entry.read() == b"picture"


def test_a_path_with_nothing_said_is_known_as_the_folder_source_knows_it(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jpg")
    for given in ("a.jpg", "./x/../a.jpg", str(path)):
        [entry] = entries(tmp_path, jsonl({"path": given}))
        assert entry.item_id == stable_id(f"file:{path}")
        assert (entry.name, entry.metadata) == ("a.jpg", None)


def test_csv_says_the_same_with_columns_and_leaves_text_as_text(tmp_path: Path) -> None:
    write(tmp_path / "a, b.jpg")
    table = 'id,path,colour,price,metadata\n007,"a, b.jpg",red,1.50,"{""size"": 3}"\n'
    [entry] = entries(tmp_path, table)
    assert (entry.item_id, entry.name) == ("007", "a, b.jpg")
    assert entry.metadata == {"colour": "red", "price": "1.50", "size": 3}
    assert entry.read() == b"picture"


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_csv_from_any_spreadsheet_is_understood(tmp_path: Path, delimiter: str) -> None:
    write(tmp_path / "a.jpg")
    table = f"path{delimiter}colour\r\na.jpg{delimiter}\r\n\r\na.jpg{delimiter}red\r\n"
    first, second = entries(tmp_path, b"\xef\xbb\xbf" + table.encode())
    assert (first.metadata, second.metadata) == (None, {"colour": "red"})
    assert first.read() == b"picture"


def test_a_number_may_be_an_id(tmp_path: Path) -> None:
    assert entries(tmp_path, jsonl({"path": "a.jpg", "id": 12}))[0].item_id == "12"


def test_bad_lines_fail_alone_and_are_named_by_their_number(tmp_path: Path) -> None:
    write(tmp_path / "a.jpg")
    lines = [
        '{"path": "a.jpg"}',
        "{no json}",
        '["path", "a.jpg"]',
        '{"id": "1"}',
        '{"path": "a.jpg", "url": "http://example.org/"}',
        '{"path": 5}',
        '{"path": " "}',
        '{"path": "a.jpg", "id": "a/b"}',
        '{"path": "a.jpg", "id": true}',
        '{"path": "a.jpg", "metadata": [1]}',
        '{"path": "a.jpg", "name": 5}',
        '{"path": ' + "[" * 100_000,
        '{"path": "a.jpg"}',
    ]
    first, *bad, last = entries(tmp_path, "\n\n".join(lines))
    assert first.read() == last.read() == b"picture"
    assert {code_of(entry) for entry in bad} == {"manifest-line-invalid"}
    numbers = [2 * index + 1 for index in range(len(lines))][1:-1]
    assert [entry.reference for entry in bad] == [f"line {number}" for number in numbers]
    with pytest.raises(SourceError, match=r"^line 3: "):
        bad[0].read()


def test_lines_that_are_too_long_or_no_text_fail_alone(tmp_path: Path) -> None:
    write(tmp_path / "a.jpg")
    good = jsonl({"path": "a.jpg"}).encode()
    content = good + b'{"path": "' + b"a" * 3_000_000 + b'"}\n' + b'{"path": "\xff"}\n' + good
    first, long, odd, last = entries(tmp_path, content)
    assert first.read() == last.read() == b"picture"
    assert code_of(long) == code_of(odd) == "manifest-line-invalid"


def test_a_row_of_too_many_fields_or_an_open_quote_does_not_stop_a_table(tmp_path: Path) -> None:
    write(tmp_path / "a.jpg")
    table = 'path,colour\na.jpg,red,extra\na.jpg,blue\n"' + "x" * 200_000 + "\na.jpg,green\n"
    outcomes = [entry.metadata and entry.metadata["colour"] for entry in entries(tmp_path, table)]
    assert outcomes == [None, "blue", None, "green"]


@pytest.mark.parametrize(
    "content", ["", "\n\n", "a.jpg\nb.jpg\n", "id,name\n1,a\n", "path,path\n", b"\xff\xfe\x00p"]
)
def test_what_is_no_manifest_is_refused_at_once(tmp_path: Path, content: str | bytes) -> None:
    with pytest.raises(SourceError) as caught:
        entries(tmp_path, content)
    assert caught.value.code == "manifest-unreadable"


def test_a_manifest_must_be_there_and_under_the_roots_unless_it_was_uploaded(
    tmp_path: Path,
) -> None:
    root = tmp_path / "root"
    write(root / "a.jpg")
    manifest = write(tmp_path / "uploads" / "m.jsonl", jsonl({"path": "a.jpg"}))
    (root / "link.jsonl").symlink_to(manifest)
    for path in (manifest, root / "link.jsonl"):
        with pytest.raises(SourceError) as caught:
            ManifestSource(path, [root], OFFLINE)
        assert caught.value.code == "manifest-not-allowed"
    with pytest.raises(SourceError) as caught:
        ManifestSource(root / "gone.jsonl", [root], OFFLINE)
    assert caught.value.code == "manifest-unreadable"
    [entry] = ManifestSource(manifest, [root], OFFLINE, uploaded=True).entries()
    assert entry.read() == b"picture"


def test_an_uploaded_manifests_paths_are_found_in_the_first_root_that_has_them(
    tmp_path: Path,
) -> None:
    first, second = tmp_path / "1", tmp_path / "2"
    write(first / "a.jpg", "first a")
    write(second / "a.jpg", "second a")
    write(second / "b.jpg", "second b")
    content = jsonl(*({"path": name} for name in ("a.jpg", "b.jpg", "c.jpg")))
    path = write(tmp_path / "upload", content)
    source = ManifestSource(path, [first, second], OFFLINE, uploaded=True)
    a, b, c = source.entries()
    assert (a.read(), b.read(), code_of(c)) == (b"first a", b"second b", "source-file-missing")


@pytest.mark.parametrize("given", ["../secret.jpg", "/etc/passwd", "link.jpg", "a\0.jpg", "~/x"])
def test_paths_outside_the_roots_fail_alone(tmp_path: Path, given: str) -> None:
    root = tmp_path / "root"
    write(tmp_path / "secret.jpg")
    write(root / "a.jpg")
    (root / "link.jpg").symlink_to(tmp_path / "secret.jpg")
    bad, good = entries(root, jsonl({"path": given}, {"path": "a.jpg"}))
    assert good.read() == b"picture"
    expected = {"a\0.jpg": "source-file-unreadable", "~/x": "source-file-missing"}
    assert code_of(bad) == expected.get(given, "path-outside-roots")


def test_a_picture_by_path_is_capped(tmp_path: Path) -> None:
    write(tmp_path / "a.jpg", bytes(101))
    [entry] = entries(tmp_path, jsonl({"path": "a.jpg"}), max_bytes=100)
    assert code_of(entry) == "picture-too-many-bytes"


class _Pictures(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        found = self.path.startswith("/shoes/")
        self.send_response(200 if found else 404)
        self.end_headers()
        self.wfile.write(b"from afar" if found else b"")

    def log_message(self, *_: object) -> None:
        pass


def test_pictures_by_url_are_fetched_when_they_are_read(tmp_path: Path) -> None:
    with HTTPServer(("127.0.0.1", 0), _Pictures) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        base = f"http://127.0.0.1:{server.server_port}"
        fetch = Fetcher(allowed_addresses=[f"127.0.0.1:{server.server_port}"]).fetch
        urls = [f"{base}/shoes/a%20b.jpg?x=1", f"{base}/gone", "http://127.0.0.1:1/", "file:///etc"]
        good, *bad = entries(tmp_path, jsonl(*({"url": url} for url in urls)), fetch)
        try:
            assert good.read() == b"from afar"
            codes = [code_of(entry) for entry in bad]
        finally:
            server.shutdown()
            thread.join()
    assert codes == ["url-status", "url-forbidden", "url-forbidden"]
    assert (good.name, good.source, good.stamp) == ("a b.jpg", urls[0], None)
    assert good.item_id == stable_id(urls[0])


def test_offline_urls_fail_and_paths_do_not(tmp_path: Path) -> None:
    write(tmp_path / "a.jpg")
    afar, near = entries(tmp_path, jsonl({"url": "https://example.org/a.jpg"}, {"path": "a.jpg"}))
    assert code_of(afar) == "url-offline"
    assert near.read() == b"picture"


@pytest.mark.parametrize("url", ["http://[", "not a url", "http://exa mple/a.jpg"])
def test_a_url_that_is_none_fails_alone_when_it_is_read(tmp_path: Path, url: str) -> None:
    def never(host: str, port: int) -> list[str]:
        raise AssertionError(host)

    [entry] = entries(tmp_path, jsonl({"url": url}), Fetcher(resolve=never).fetch)
    assert code_of(entry) in ("url-invalid", "url-forbidden", "manifest-line-invalid")


def test_an_iterator_left_early_closes_the_manifest(tmp_path: Path) -> None:
    """An open file would be a ResourceWarning, which the settings of pytest make an error."""
    path = write(tmp_path / "m", jsonl({"path": "a.jpg"}, {"path": "b.jpg"}))
    iterator = ManifestSource(path, [tmp_path], OFFLINE).entries()
    assert next(iterator).name == "a.jpg"
    iterator.close()  # type: ignore[attr-defined]
