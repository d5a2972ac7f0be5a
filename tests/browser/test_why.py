"""Why a neighbour was found, on the page: by mouse, by keyboard, in several spaces, in words."""

import re
from pathlib import Path

import pytest

from .conftest import WAIT_MS, Visit, Visits, sync_api
from .test_page import choose, neighbours

pytestmark = pytest.mark.browser
expect = sync_api.expect
expect.set_options(timeout=WAIT_MS)

Pictures = dict[str, Path]
LIT = """(canvas) => {
  const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  const greens = new Set();
  for (let at = 1; at < data.length; at += 4) greens.add(data[at]);
  return greens.size;
}"""


def test_why_shows_both_pictures_with_heatmaps_and_the_region_that_matches(
    visit: Visit, pictures: Pictures
) -> None:
    page = visit.open()
    found = choose(page, pictures["discs-3.png"])
    card = page.locator("#neighbours .card").nth(1)
    card.hover()
    card.get_by_role("button", name=f"Why {found[1][0]} was found").click()
    dialog = page.get_by_role("dialog", name="Why it was found")
    expect(dialog).to_be_visible()
    expect(dialog).to_have_attribute("aria-busy", "false")
    score = float(dialog.locator("#why-score").inner_text().removeprefix("Score "))
    assert score == pytest.approx(found[1][1], abs=0.03)  # looked at again as a thumbnail
    for side, name in (("#why-query", "discs-3.png"), ("#why-neighbour", found[1][0])):
        canvas = dialog.locator(f"{side} canvas")
        expect(canvas).to_be_visible()
        expect(canvas).to_have_attribute("aria-label", re.compile("the most comes from"))
        assert canvas.evaluate(LIT) > 20
        expect(dialog.locator(f"{side} figcaption")).to_contain_text(name)
    expect(dialog.locator("#why-neighbour .why-box")).to_have_text("best match")
    expect(dialog.locator("#why-spaces")).to_contain_text("100 %")
    dialog.get_by_label("Show what adds to the score").uncheck()
    expect(dialog.locator("#why-query canvas")).to_be_hidden()
    dialog.get_by_role("button", name="Close").click()
    expect(dialog).to_be_hidden()


def test_by_keyboard_it_opens_and_escape_closes_it_without_leaving_the_search(
    visit: Visit,
) -> None:
    page = visit.open()
    page.locator("#gallery a", has_text="discs-4.png").click()
    neighbours(page)
    page.locator("#neighbours a").first.focus()
    page.keyboard.press("ArrowRight")
    second = page.locator("#neighbours .card").nth(1)
    expect(second.locator("a")).to_be_focused()
    page.keyboard.press("Tab")
    expect(second.locator(".why-button")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#why")).to_have_attribute("aria-busy", "false")
    page.keyboard.press("Escape")
    expect(page.locator("#why")).to_be_hidden()
    expect(second.locator(".why-button")).to_be_focused()
    expect(page.locator("#search-view")).to_be_visible()
    page.keyboard.press("ArrowLeft")
    expect(page.locator("#neighbours a").first).to_be_focused()


def test_with_several_spaces_each_has_its_share_and_its_own_heatmaps(visit: Visit) -> None:
    page = visit.open("#/default?space=low:0.5,high:0.5")
    page.locator("#gallery a", has_text="discs-4.png").click()
    neighbours(page)
    page.locator("#neighbours .card").first.hover()
    page.locator("#neighbours .why-button").first.click()
    rows = page.locator("#why-spaces label")
    expect(rows).to_have_count(2)
    shares = [int(text.removesuffix(" %")) for text in rows.locator(".why-share").all_inner_texts()]
    assert sum(shares) == pytest.approx(100, abs=1)
    width = "(canvas) => canvas.width"
    widths = set()
    for at in range(2):
        rows.nth(at).locator("input").check()
        widths.add(page.locator("#why-query canvas").evaluate(width))
    assert widths == {27 * 24, 13 * 24}  # conv2 and conv5 of AlexNet


def test_what_was_ranked_anew_is_explained_by_its_cosine(visit: Visit, pictures: Pictures) -> None:
    page = visit.open()
    choose(page, pictures["discs-3.png"])
    with page.expect_response("**/search"):
        page.select_option("#rerank", "k-reciprocal")
    card = page.locator("#neighbours .card").nth(1)
    card.hover()
    with page.expect_response("**/explain") as answered:
        card.get_by_role("button", name="Why").click()
    assert answered.value.status == 200
    expect(page.locator("#why-score")).to_contain_text("Score")


def test_what_several_pictures_share_has_no_why(visit: Visit, pictures: Pictures) -> None:
    page = visit.open()
    choose(page, pictures["discs-1.png"], pictures["stripes-1.png"])
    expect(page.locator(".why-button")).to_have_count(0)


def test_a_failure_says_what_is_wrong(visit: Visit) -> None:
    page = visit.open()
    page.locator("#gallery a", has_text="discs-4.png").click()
    neighbours(page)
    visit.expect_error("503")
    page.route("**/explain", lambda route: route.fulfill(status=503))
    page.locator("#neighbours .card").first.hover()
    page.locator("#neighbours .why-button").first.click()
    expect(page.locator("#why-problem")).to_contain_text("not ready yet")


def test_on_a_telephone_it_fits(visiting: Visits) -> None:
    page = visiting(390, 760, has_touch=True, is_mobile=True).open()
    page.locator("#gallery a").first.click()
    neighbours(page)
    page.locator("#neighbours .why-button").first.tap()
    expect(page.locator("#why")).to_have_attribute("aria-busy", "false")
    box = page.locator("#why").bounding_box()
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= 390
    overflow = "(dialog) => dialog.scrollWidth - dialog.clientWidth"
    assert page.locator("#why").evaluate(overflow) <= 0
