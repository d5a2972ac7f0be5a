"""Names that the service goes by, pages that may call it, and what browsers are told."""

from collections.abc import Callable, Iterator

import httpx
import pytest
from fastapi.testclient import TestClient
from pydantic import ValidationError

from service.app import create_app
from service.engine import Engine
from service.security.headers import HEADERS, POLICIES
from service.settings import Settings
from tests.pictures import encoded

Served = Callable[..., TestClient]


@pytest.fixture
def served(engine: Engine) -> Served:
    """A client of a service with these settings; no life cycle, which these answers need not."""

    def make(**changed: object) -> TestClient:
        settings = engine.settings.model_copy(update={"hosts": (), **changed})
        engine.settings = settings
        app = create_app(engine)
        app.state.engine = engine
        return TestClient(app, base_url="http://localhost")

    return make


def named(client: TestClient, *hosts: str) -> httpx.Response:
    return client.get("/openapi.json", headers=[("Host", host) for host in hosts])


@pytest.mark.parametrize(
    "host",
    ["localhost", "LOCALHOST:8000", "127.0.0.1", "127.0.0.1:1", "[::1]", "[::1]:80", "localhost."],
)
def test_the_loopback_is_known_by_its_names(served: Served, host: str) -> None:
    assert named(served(), host).status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8000",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "localhost@evil.example",
        "evil.example@localhost",
        "localhost:8000:80",
        "localhost:",
        "localhost:8000 ",
        "192.0.2.1",
        "[::2]",
        "::1",
        "",
        "localhost, evil.example",
    ],
)
def test_a_name_that_was_made_to_point_here_is_refused(served: Served, host: str) -> None:
    answer = named(served(), host)
    assert (answer.status_code, answer.json()["code"]) == (421, "host-unknown")
    assert answer.headers["content-type"] == "application/problem+json"


def test_two_names_at_once_are_none(served: Served) -> None:
    assert named(served(), "localhost", "localhost").status_code == 421


def test_the_settings_add_names_and_the_address_is_one(served: Served) -> None:
    client = served(hosts=("pics.example.org",), host="192.0.2.1")
    assert named(client, "pics.example.org:443").status_code == 200
    assert named(client, "PICS.example.org.").status_code == 200
    assert named(client, "192.0.2.1:8000").status_code == 200
    assert named(client, "192.0.2.2:8000").status_code == 421
    everywhere = served(host="0.0.0.0", insecure=True)
    assert named(everywhere, "192.0.2.2:8000").status_code == 200
    assert named(everywhere, "[2001:db8::1]:8000").status_code == 200
    assert named(everywhere, "evil.example").status_code == 421


@pytest.mark.parametrize("name", ["*", "http://a.example", "a.example:80", "a b", "*.example"])
def test_what_is_no_name_is_no_setting(name: str) -> None:
    with pytest.raises(ValidationError, match="no host name"):
        Settings(hosts=(name,))


@pytest.fixture
def page(served: Served) -> Iterator[TestClient]:
    with served(hosts=("pics.example",), cors_origins=("https://shop.example",)) as client:
        yield client


FOREIGN = [
    "https://evil.example",
    "null",
    "http://localhost.evil.example",
    "http://localhost:1",
    "",
]


@pytest.mark.parametrize("origin", FOREIGN)
def test_a_form_of_another_page_changes_nothing(page: TestClient, origin: str) -> None:
    files = {"files": ("1.png", encoded(1), "image/png")}
    url = "/v1/collections/default/items"
    answer = page.post(url, files=files, headers={"Origin": origin})
    assert (answer.status_code, answer.json()["code"]) == (403, "origin-forbidden")
    assert page.get("/v1/collections/default").json()["items"] == 0


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        ("http://localhost", "localhost"),
        ("https://pics.example", "pics.example"),
        ("https://shop.example", "pics.example"),
        (None, "localhost"),
    ],
)
def test_our_own_page_and_those_that_are_let_in_may_write(
    page: TestClient, origin: str | None, host: str
) -> None:
    headers = {"Host": host} | ({"Origin": origin} if origin else {})
    patch = {"metadata": {}}
    answer = page.patch("/v1/collections/default/items/none", json=patch, headers=headers)
    assert answer.json()["code"] == "item-unknown"


def test_only_origins_that_are_let_in_may_read(page: TestClient) -> None:
    for origin, seen in (("https://shop.example", True), ("https://evil.example", False)):
        answer = page.get("/openapi.json", headers={"Origin": origin})
        assert (answer.headers.get("access-control-allow-origin") == origin) is seen
        assert "access-control-allow-credentials" not in answer.headers
        asked = {
            "Origin": origin,
            "Access-Control-Request-Method": "PATCH",
            "Access-Control-Request-Headers": "authorization",
        }
        preflight = page.options("/v1/collections/default/items/1", headers=asked)
        assert (preflight.status_code == 200) is seen


def test_by_default_no_other_page_may_even_ask(served: Served) -> None:
    answer = served().get("/openapi.json", headers={"Origin": "https://shop.example"})
    assert not [name for name in answer.headers if name.startswith("access-control")]


@pytest.mark.parametrize("origin", ["*", "shop.example", "https://shop.example/", "null"])
def test_an_origin_is_named_in_full(origin: str) -> None:
    with pytest.raises(ValidationError, match="no origin"):
        Settings(cors_origins=(origin,))


@pytest.mark.parametrize("path", ["/", "/docs", "/v1/collections", "/v1/none", "/static/main.js"])
def test_every_answer_carries_the_security_headers(page: TestClient, path: str) -> None:
    answers = [page.get(path), page.get(path, headers={"Host": "evil.example"})]
    for answer in answers:
        assert {name: answer.headers[name] for name in HEADERS} == dict(HEADERS)
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe-eval" not in policy
        assert ("unsafe-inline" in policy) == (path == "/docs")
        assert ("sandbox" in policy) == (path not in POLICIES)


def test_the_page_has_no_script_or_style_in_line(page: TestClient) -> None:
    text = page.get("/").text
    assert "<style" not in text
    assert " style=" not in text
    assert all('src="static/' in tag for tag in text.split("<script")[1:])
    assert not [word for word in text.split() if word.startswith("on") and "=" in word]
