"""The page on a service that asks for keys: every request of it carries the one that was given."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from index import Catalog

from .conftest import Visit, serving, sync_api, upload
from .drawing import archive

pytestmark = pytest.mark.browser
expect = sync_api.expect


@pytest.fixture
def locked(
    chromium: sync_api.Browser, tmp_path: Path, pictures: dict[str, Path]
) -> Iterator[tuple[Visit, str]]:
    """A visit to a service with keys, and a key that may write."""
    with Catalog.open(tmp_path / "data") as catalog:
        _, secret = catalog.keys.add("page", "write")
    with serving(tmp_path) as address:
        upload(address, dict(list(pictures.items())[:6]), secret)
        visit = Visit(chromium.new_context().new_page(), address)
        yield visit, secret
        visit.page.context.close()
        visit.check()


def test_the_page_asks_for_a_key_and_sends_it_with_everything(
    locked: tuple[Visit, str], pictures: dict[str, Path]
) -> None:
    visit, secret = locked
    visit.expect_error("401")
    page = visit.open()
    dialog = page.locator("#key")
    expect(dialog).to_be_visible()
    page.fill("#key-input", "pool5_000000000000_wrong")
    page.click("text=Use this key")
    expect(page.locator("#key-reason")).to_contain_text("unknown, revoked or expired")
    page.fill("#key-input", secret)
    page.click("text=Use this key")
    expect(dialog).to_be_hidden()

    width = "(image) => image.decode().then(() => image.naturalWidth)"
    expect(page.locator("#gallery .card")).to_have_count(6)
    image = page.locator("#gallery img").first
    expect(image).to_have_attribute("src", re.compile("^blob:"))
    assert image.evaluate(width) > 0
    with page.expect_file_chooser() as chooser:
        page.click("#choose")
    chooser.value.set_files(pictures["discs-3.png"])
    expect(page.locator("#neighbours .card").first).to_be_visible()
    page.locator("#neighbours .why-button").first.click(force=True)
    expect(page.locator("#why-neighbour canvas")).to_be_visible()
    assert page.locator("#why-neighbour img").evaluate(width) > 0
    page.keyboard.press("Escape")

    more = {"name": "more.zip", "mimeType": "application/zip", "buffer": archive(4)}
    page.set_input_files("#add-files", more)
    expect(page.locator(".task-line")).to_have_text("Done · 4 of 4", timeout=30_000)
    page.reload()
    expect(page.locator("#count")).to_have_text("10 pictures")
    assert secret not in page.url
    assert page.evaluate("localStorage.length") == 0
