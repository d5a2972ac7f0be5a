"""Input that is made to do harm, at every place where the service takes any."""

import io
import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient
from PIL import Image, ImageCms
from PIL.TiffImagePlugin import IFDRational

from index import filters
from service.app import create_app
from service.engine import Engine
from service.forms import MAX_FIELD_BYTES
from service.settings import Settings
from tests.pictures import encoded, picture

COLLECTION = "/v1/collections/default"
NESTED = '{"a":' * 100_000 + "1" + "}" * 100_000
LISTS = "[" * 100_000 + "]" * 100_000
MARK = "where-it-was-taken"


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    folder = tmp_path_factory.mktemp("hostile")
    return Settings(
        data=folder / "data",
        offline=True,
        device="cpu",
        weights="untrained",
        weights_dir=folder,
        hosts=("testserver",),
    )


@pytest.fixture(scope="module")
def client(settings: Settings) -> Iterator[TestClient]:
    """One service for all of it, which must have survived what came before."""
    with (
        Engine(settings) as engine,
        TestClient(create_app(engine), raise_server_exceptions=False) as opened,
    ):
        yield opened
        assert opened.get("/health/ready").status_code == 200


def refused(answer: httpx.Response) -> str:
    """The code of a refusal, which is never an accident of the service's."""
    assert 400 <= answer.status_code < 500, answer.text[:500]
    assert answer.headers["content-type"] == "application/problem+json"
    found: str = answer.json()["code"]
    return found


@pytest.mark.parametrize("body", [NESTED, LISTS, "1" * 5000, "[1e999]", "\x00", '"\ud800"', "NaN"])
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", f"{COLLECTION}/search"),
        ("POST", f"{COLLECTION}/explain"),
        ("POST", f"{COLLECTION}/jobs"),
        ("POST", "/v1/collections"),
        ("PATCH", f"{COLLECTION}/items/none"),
    ],
)
def test_json_of_any_depth_is_refused(
    client: TestClient, method: str, path: str, body: str
) -> None:
    headers = {"Content-Type": "application/json"}
    content = body.encode("utf-8", "surrogatepass")
    refused(client.request(method, path, content=content, headers=headers))


@pytest.mark.parametrize("value", [NESTED, LISTS, '{"a": ' + "1" * 5000 + "}", '{"a": 1e999}'])
@pytest.mark.parametrize("field", ["filter", "space", "region", "expansion", "rerank", "negatives"])
def test_fields_of_any_depth_are_refused(client: TestClient, field: str, value: str) -> None:
    files = {"file": ("a.png", encoded(1), "image/png")}
    refused(client.post(f"{COLLECTION}/search", files=files, data={field: value}))


@pytest.mark.parametrize("value", [NESTED, LISTS, '{"a":' * 40 + "1" + "}" * 40, '{"a": NaN}'])
def test_metadata_is_bounded_in_depth_and_to_json(client: TestClient, value: str) -> None:
    before = client.get(COLLECTION).json()["items"]
    files = {"files": ("a.png", encoded(7), "image/png")}
    answer = client.post(f"{COLLECTION}/items", files=files, data={"metadata": value})
    if answer.status_code == 200:
        assert answer.json()["items"][0]["problem"]["code"] == "metadata-invalid"
    else:
        refused(answer)
    assert client.get(COLLECTION).json()["items"] == before


def test_metadata_is_bounded_in_size_however_it_grows(client: TestClient) -> None:
    files = {"files": ("a.png", encoded(8), "image/png")}
    client.post(f"{COLLECTION}/items", files=files, data={"ids": '["a"]'}).raise_for_status()
    for n in range(2):
        grown = client.patch(
            f"{COLLECTION}/items/a", json={"metadata": {f"field{n}": "x" * 40_000}}
        )
    assert refused(grown) == "metadata-invalid"
    wide = {"metadata": {str(n): n for n in range(10_000)}}
    assert refused(client.patch(f"{COLLECTION}/items/a", json=wide)) == "metadata-invalid"


def terms(depth: int) -> dict[str, Any]:
    return {"not": terms(depth - 1)} if depth else {"a": 1}


@pytest.mark.parametrize(
    "body",
    [
        {"k": 1001},
        {"k": 0},
        {"k": 10**400},
        {"offset": 10_001},
        {"offset": -1},
        {"positives": ["a"] * 101},
        {"negatives": ["a"] * 101},
        {"url": "http://example.org/" + "a" * 2000},
        {"item": "a" * 201},
        {"filter": terms(filters.DEEPEST)},
        {"filter": terms(250)},
        {"filter": {str(n): n for n in range(filters.MOST_TERMS + 1)}},
        {"filter": {"a": {"in": list(range(filters.MOST_VALUES + 1))}}},
        {"filter": {"a" * (filters.LONGEST_FIELD + 1): 1}},
        {"filter": {"a": "x" * (filters.LONGEST_VALUE + 1)}},
        {"filter": {"a": {"in": ["x" * (filters.LONGEST_VALUE + 1)]}}},
        {"filter": {"a": {"gt": "x" * (filters.LONGEST_VALUE + 1)}}},
        {"expansion": {"n": 201}},
        {"verify": {"n": 10**6}},
        {"rerank": {"method": "diffusion", "shortlist": 10**9}},
        {"space": {f"s{n}": 1.0 for n in range(10_000)}},
        {"space": "high" * 10_000},
    ],
)
def test_a_search_asks_for_no_more_than_it_may(client: TestClient, body: dict[str, Any]) -> None:
    refused(client.post(f"{COLLECTION}/search", json={"item": "a", **body}))


@pytest.mark.parametrize(
    "body",
    [
        {"name": "a" * 65},
        {"name": "../a"},
        {"name": "a", "spaces": {f"s{n}": "alexnet/conv1/mac" for n in range(17)}},
        {"name": "a", "spaces": {"high": "alexnet/" + "conv1+" * 100 + "conv2/mac"}},
        {"name": "a", "spaces": {"high": "../../etc/passwd"}},
        {"name": "a", "weights": {"alexnet": "../../../../etc/passwd"}},
        {"name": "a", "weights": {str(n): "auto" for n in range(17)}},
        {"name": "a", "keep_grids": ["high"] * 9},
    ],
)
def test_a_collection_is_no_larger_than_it_may(client: TestClient, body: dict[str, Any]) -> None:
    refused(client.post("/v1/collections", json=body))
    assert len(client.get("/v1/collections").json()["collections"]) == 1


def part(headers: str, content: bytes = b"x") -> bytes:
    return b"--b\r\n" + headers.encode() + b"\r\n\r\n" + content + b"\r\n"


FILE = 'Content-Disposition: form-data; name="files"; filename="a.png"'
FIELD = 'Content-Disposition: form-data; name="f"'


@pytest.mark.parametrize(
    "body",
    [
        part(FILE) * 1001 + b"--b--\r\n",
        part(FIELD) * 101 + b"--b--\r\n",
        part(FIELD, b"x" * (MAX_FIELD_BYTES + 1)) + b"--b--\r\n",
        part(FILE + "\r\nX-Long: " + "x" * 10_000) + b"--b--\r\n",
        part(FILE + "\r\nX-Many: 1" * 100) + b"--b--\r\n",
        part("Content-Disposition: form-data") + b"--b--\r\n",
        part("X: y") + b"--b--\r\n",
        part(FILE)[:-10],
        b"no boundary at all",
        b"--b\r\n" * 1000,
        b"",
    ],
)
def test_a_form_has_no_more_parts_than_it_may(client: TestClient, body: bytes) -> None:
    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    refused(client.post(f"{COLLECTION}/items", content=body, headers=headers))


@pytest.mark.parametrize("kind", ["", "; boundary=", f"; boundary={'b' * 1000}", "; boundary=é"])
def test_a_form_has_a_boundary(client: TestClient, kind: str) -> None:
    headers = {"Content-Type": f"multipart/form-data{kind}".encode("latin-1")}
    refused(client.post(f"{COLLECTION}/items", content=b"--b\r\n", headers=headers))


HTML = b"<!doctype html><script>alert(1)</script>"
SVG = b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'


@pytest.mark.parametrize("content", [HTML, SVG, b"<?xml version='1.0'?>" + SVG, b"GIF89a" + HTML])
@pytest.mark.parametrize("kind", ["image/png", "image/svg+xml", "text/html"])
def test_what_a_browser_could_run_is_no_picture_whatever_it_says_it_is(
    client: TestClient, content: bytes, kind: str
) -> None:
    files = {"files": ("a.png", content, kind)}
    (outcome,) = client.post(f"{COLLECTION}/items", files=files).json()["items"]
    assert outcome["status"] == "failed"


@pytest.mark.parametrize("form", ["JPEG", "GIF", "PNG", "WEBP", "BMP"])
def test_a_picture_that_is_also_a_page_is_served_as_a_picture_only(
    client: TestClient, form: str
) -> None:
    files = {"files": ("a.html", encoded(1, form) + HTML, "text/html")}
    (outcome,) = client.post(f"{COLLECTION}/items", files=files).json()["items"]
    thumbnail = client.get(f"{COLLECTION}/items/{outcome['id']}/thumbnail")
    assert thumbnail.headers["content-type"] == "image/jpeg"
    assert thumbnail.headers["x-content-type-options"] == "nosniff"
    assert "sandbox" in thumbnail.headers["content-security-policy"]
    assert thumbnail.content.startswith(b"\xff\xd8\xff")
    assert b"script" not in thumbnail.content


def revealing(form: str) -> bytes:
    """A picture that says where it was taken, in every place that its format has for it."""
    image = picture(3, (640, 480))
    exif = Image.Exif()
    exif[0x010E] = MARK  # ImageDescription
    exif[0x8825] = {1: "N", 2: (IFDRational(47), IFDRational(22), IFDRational(30)), 29: MARK}
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    xmp = f'<x:xmpmeta xmlns:x="adobe:ns:meta/">{MARK}</x:xmpmeta>'.encode()
    buffer = io.BytesIO()
    more: dict[str, Any] = {"xmp": xmp} if form != "PNG" else {}
    if form == "JPEG":
        more["comment"] = MARK.encode()
    image.save(buffer, form, exif=exif, icc_profile=profile, **more)
    assert buffer.getvalue().count(MARK.encode()) >= 2
    return buffer.getvalue()


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
def test_a_thumbnail_says_nothing_of_where_it_was_taken(client: TestClient, form: str) -> None:
    files = {"files": ("a", revealing(form), "image/jpeg")}
    (outcome,) = client.post(f"{COLLECTION}/items", files=files).json()["items"]
    content = client.get(f"{COLLECTION}/items/{outcome['id']}/thumbnail").content
    assert MARK.encode() not in content
    for segment in (b"Exif", b"ICC_PROFILE", b"http://ns.adobe.com", b"\xff\xfe"):
        assert segment not in content
    with Image.open(io.BytesIO(content)) as image:
        assert not dict(image.getexif())
        assert not {"exif", "icc_profile", "xmp", "comment"} & image.info.keys()


def test_a_name_is_shown_and_leads_nowhere(client: TestClient, settings: Settings) -> None:
    before = {path.name for path in settings.data.parent.iterdir()}
    names = ["../../../x.png", "/etc/x.png", "..\\x.png", "a\x00b.png", "x" * 3000, "<b>.png"]
    files = [("files", (name, encoded(20 + n), "image/png")) for n, name in enumerate(names)]
    outcomes = client.post(f"{COLLECTION}/items", files=files).json()["items"]
    assert {outcome["status"] for outcome in outcomes} == {"added"}
    assert all("/" not in o["name"] and len(o["name"]) <= 200 for o in outcomes)
    assert {path.name for path in settings.data.parent.iterdir()} == before
    shown = client.get(f"{COLLECTION}/items")
    assert shown.headers["content-type"] == "application/json"
    assert json.loads(shown.text)["items"]
