"""The search page does what its visitors came for: search, by any hand and on any screen."""

import json
import re
import uuid
from pathlib import Path

import httpx
import pytest
from PIL import Image

from index.ranking.reranking import METHODS

from .conftest import WAIT_MS, Visit, Visits, sync_api
from .drawing import archive

pytestmark = pytest.mark.browser
expect = sync_api.expect
expect.set_options(timeout=WAIT_MS)

Pictures = dict[str, Path]

MAKE_TRANSFER = """async (files) => {
  const transfer = new DataTransfer();
  for (const [name, bytes] of files)
    transfer.items.add(new File([new Uint8Array(bytes)], name, { type: "image/png" }));
  return transfer;
}"""


def transfer(page: sync_api.Page, *paths: Path) -> sync_api.JSHandle:
    """A DataTransfer with these files, as a drop or a paste carries them."""
    return page.evaluate_handle(MAKE_TRANSFER, [[p.name, list(p.read_bytes())] for p in paths])


def neighbours(page: sync_api.Page) -> list[tuple[str, float]]:
    """Names and scores on the page, once the search is over."""
    expect(page.locator(".results")).to_have_attribute("aria-busy", "false")
    expect(page.locator("#neighbours .card").first).to_be_visible()
    return [
        (card.locator(".name").inner_text(), float(card.locator(".score").inner_text()))
        for card in page.locator("#neighbours .card").all()
    ]


def choose(page: sync_api.Page, *paths: Path) -> list[tuple[str, float]]:
    """Search by files, through the file chooser that the button opens."""
    with page.expect_file_chooser() as chooser, page.expect_response("**/search"):
        page.click("#choose")
        chooser.value.set_files(paths)
    return neighbours(page)


def sent(request: sync_api.Request) -> dict[str, object]:
    return json.loads(request.post_data or "")


def new_collection(address: str, **fields: object) -> str:
    name = f"test-{uuid.uuid4().hex[:8]}"
    body = {"name": name, "weights": {"alexnet": "untrained"}, **fields}
    httpx.post(f"{address}v1/collections", json=body, timeout=30).raise_for_status()
    return name


def test_the_gallery_shows_the_collection_and_says_that_its_weights_are_untrained(
    visit: Visit, pictures: Pictures
) -> None:
    page = visit.open()
    expect(page.locator("#gallery .card")).to_have_count(len(pictures))
    expect(page.locator("#count")).to_have_text("30 pictures")
    expect(page.locator("#notices")).to_contain_text("untrained")
    width = "(image) => image.decode().then(() => image.naturalWidth)"
    assert page.locator("#gallery img").first.evaluate(width) > 0


def test_a_chosen_picture_stands_beside_its_neighbours(visit: Visit, pictures: Pictures) -> None:
    page = visit.open()
    found = choose(page, pictures["discs-3.png"])
    scores = [score for _, score in found]
    assert found[0][0] == "discs-3.png"
    assert scores[0] >= 0.999
    assert scores == sorted(scores, reverse=True)
    query, results = (page.locator(part).bounding_box() for part in ("#stage", "#neighbours"))
    assert query["width"] / query["height"] == pytest.approx(200 / 140, rel=0.01)
    assert query["x"] + query["width"] <= results["x"]
    expect(page.locator("#took")).to_contain_text("forward")


def test_a_dropped_picture_is_searched_by(visit: Visit, pictures: Pictures) -> None:
    page = visit.open()
    expect(page.locator("#gallery .card").first).to_be_visible()
    carried = transfer(page, pictures["stripes-5.png"])
    page.dispatch_event("body", "dragenter", {"dataTransfer": carried})
    expect(page.locator("#drop")).to_be_visible()
    page.dispatch_event("[data-drop=search]", "dragover", {"dataTransfer": carried})
    page.dispatch_event("[data-drop=search]", "drop", {"dataTransfer": carried})
    assert neighbours(page)[0][0] == "stripes-5.png"
    expect(page.locator("#drop")).to_be_hidden()


def test_a_pasted_picture_is_searched_by(visit: Visit, pictures: Pictures) -> None:
    page = visit.open()
    expect(page.locator("#gallery .card").first).to_be_visible()
    paste = """(clipboardData) => document.dispatchEvent(
        new ClipboardEvent("paste", { clipboardData, bubbles: true, cancelable: true }))"""
    page.evaluate(paste, transfer(page, pictures["checks-7.png"]))
    assert neighbours(page)[0][0] == "checks-7.png"


def test_several_pictures_are_searched_by_together_and_one_can_be_taken_away(
    visit: Visit, pictures: Pictures
) -> None:
    page = visit.open()
    both = {"discs-1.png", "stripes-1.png"}
    found = choose(page, *(pictures[name] for name in sorted(both)))
    alone_or_not = {name: score for name, score in found if name in both}
    assert alone_or_not.keys() == both
    expect(page.locator("#positives li")).to_have_count(2)
    expect(page.locator("#region-start")).to_be_hidden()
    with page.expect_response("**/search"):
        page.get_by_role("button", name="Search without stripes-1.png").click()
    found = neighbours(page)
    assert found[0][0] == "discs-1.png"
    assert found[0][1] >= 0.999


def test_a_click_searches_by_a_neighbour_and_the_back_button_returns(visit: Visit) -> None:
    page = visit.open()
    page.locator("#gallery a", has_text="discs-4.png").click()
    first = neighbours(page)
    assert "discs-4.png" not in dict(first)
    expect(page.locator("#facts h2")).to_have_text("discs-4.png")
    expect(page.locator("#facts")).to_contain_text("200 × 140")
    page.locator("#neighbours a").nth(2).click()
    expect(page.locator("#facts h2")).to_have_text(first[2][0])
    page.go_back()
    expect(page.locator("#facts h2")).to_have_text("discs-4.png")
    assert neighbours(page) == first
    page.reload()
    expect(page.locator("#facts h2")).to_have_text("discs-4.png")
    assert neighbours(page) == first
    page.get_by_role("link", name="All pictures").click()
    expect(page.locator("#gallery .card").first).to_be_visible()


def test_metadata_is_shown_with_neighbours_and_with_the_query(visit: Visit, service: str) -> None:
    items = httpx.get(f"{service}v1/collections/default/items").json()["items"]
    item = next(item for item in items if item["name"] == "discs-0.png")
    url = f"{service}v1/collections/default/items/{item['id']}"
    httpx.patch(url, json={"metadata": {"colour": "red <b>"}}).raise_for_status()
    page = visit.open(f"#/default?item={item['id']}")
    expect(page.locator("#facts dd", has_text="red <b>")).to_be_visible()
    neighbour = next(other for other in items if other["name"] == "discs-1.png")
    page.goto(f"{service}#/default?item={neighbour['id']}")
    card = page.locator("#neighbours .card", has_text="discs-0.png")
    expect(card.locator(".meta")).to_have_text("colour: red <b>")


def test_the_space_and_a_mix_of_spaces_can_be_chosen(visit: Visit) -> None:
    page = visit.open()
    page.locator("#gallery a").first.click()
    high = neighbours(page)
    with page.expect_request("**/search") as asked:
        page.get_by_role("radio", name="Low").check()
    assert sent(asked.value)["space"] == "low"
    assert neighbours(page) != high
    with page.expect_request("**/search") as asked:
        page.get_by_role("radio", name="Mix").check()
    assert sent(asked.value)["space"] == {"low": 0.5, "mid": 0.5, "high": 0.5}
    expect(page.locator("#mix output")).to_have_text(["33 %"] * 3)
    with page.expect_request("**/search") as asked:
        page.get_by_role("slider", name="High").press("Home")
    assert sent(asked.value)["space"] == {"low": 0.5, "mid": 0.5, "high": 0}
    neighbours(page)
    page.go_back()
    page.go_back()
    expect(page.get_by_role("radio", name="Low")).to_be_checked()
    page.get_by_role("link", name="All pictures").click()
    with page.expect_request("**/search") as asked:
        page.locator("#gallery a").nth(1).click()
    assert sent(asked.value)["space"] == "low"


def test_neighbours_can_be_ranked_anew_and_the_query_expanded(visit: Visit) -> None:
    page = visit.open()
    page.locator("#gallery a").first.click()
    plain = neighbours(page)
    choices = page.locator("#rerank option").evaluate_all("(all) => all.map((one) => one.value)")
    assert choices == ["", *METHODS]
    for method in METHODS:
        with page.expect_response("**/search") as answered:
            page.select_option("#rerank", method)
        assert sent(answered.value.request)["rerank"]["method"] == method
        assert answered.value.status == 200
        ranked = neighbours(page)
        assert ranked != plain
        assert f"rerank={method}" in page.url
    title = page.locator("#neighbours .score").first.get_attribute("title")
    assert re.fullmatch(r"cosine -?[01]\.\d{3}", title or "")
    with page.expect_request("**/search") as asked:
        page.get_by_label("Ask again with what was found").check()
    assert sent(asked.value)["expansion"] == {"n": 10, "alpha": 3}
    expanded = neighbours(page)
    page.reload()
    assert neighbours(page) == expanded
    expect(page.locator("#rerank")).to_have_value(list(METHODS)[-1])
    with page.expect_request("**/search") as asked:
        page.locator("#neighbours a").first.click()
    assert sent(asked.value)["rerank"] == {"method": list(METHODS)[-1]}


def test_a_box_dragged_with_the_mouse_searches_by_that_region(
    visit: Visit, pictures: Pictures, tmp_path: Path
) -> None:
    left, right = (Image.open(pictures[name]) for name in ("checks-0.png", "stripes-6.png"))
    both = Image.new("RGB", (320, 160), "white")
    both.paste(left, (0, 0))
    both.paste(right.resize((160, 160)), (160, 0))
    both.save(tmp_path / "both.png")
    page = visit.open()
    whole = choose(page, tmp_path / "both.png")
    assert whole[0][1] < 0.999
    box = page.locator("#stage").bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] - 1)
    page.mouse.down()
    page.mouse.move(box["x"] + 40, box["y"] + 30)
    page.mouse.move(box["x"] - 20, box["y"] - 20)
    with page.expect_response("**/search"):
        page.mouse.up()
    region = page.evaluate("location.hash").split("region=")[1].split(",")
    assert [float(share) for share in region] == pytest.approx([0, 0, 0.5, 1], abs=0.02)
    found = neighbours(page)
    assert found[0][0] == "checks-0.png"
    assert found[0][1] > 0.98
    page.get_by_role("button", name="Whole picture").click()
    expect(page.locator("#region")).to_be_hidden()
    assert neighbours(page) == whole


def test_a_region_of_an_indexed_picture_moves_and_resizes_with_the_mouse(visit: Visit) -> None:
    page = visit.open()
    page.locator("#gallery a").first.click()
    neighbours(page)
    with page.expect_response("**/search"):
        page.get_by_role("button", name="Search a region").click()
    page.locator(".grip.se").drag_to(page.locator("#stage"), target_position={"x": 300, "y": 200})
    expect(page.locator("#region")).to_be_visible()
    before = page.evaluate("location.hash")
    with page.expect_response("**/search"):
        page.locator(".region-body").drag_to(
            page.locator("#stage"), target_position={"x": 90, "y": 90}
        )
    assert page.evaluate("location.hash") != before
    assert neighbours(page)


def test_a_finger_drags_the_corner_of_a_region(visiting: Visits) -> None:
    page = visiting(390, 800, has_touch=True, is_mobile=True).open()
    page.locator("#gallery a").first.tap()
    neighbours(page)
    page.get_by_role("button", name="Search a region").tap()
    neighbours(page)
    assert "region=0.25,0.25,0.75,0.75" in page.evaluate("location.hash")
    grip, stage = (page.locator(part).bounding_box() for part in (".grip.se", "#stage"))
    assert grip is not None
    assert stage is not None
    x, y = grip["x"] + grip["width"] / 2, grip["y"] + grip["height"] / 2
    fingers = page.context.new_cdp_session(page)

    def touch(kind: str, *points: tuple[float, float]) -> None:
        at = [{"x": x, "y": y} for x, y in points]
        fingers.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": at})

    touch("touchStart", (x, y))
    touch("touchMove", (x + 10, y))
    touch("touchMove", (x + stage["width"] * 0.15, y))
    with page.expect_response("**/search"):
        touch("touchEnd")
    assert "region=0.25,0.25,0.9,0.75" in page.evaluate("location.hash")


def test_everything_works_by_keyboard_with_the_focus_in_sight(visit: Visit) -> None:
    page = visit.open()
    expect(page.locator("#gallery .card").first).to_be_visible()

    def tab_to(selector: str, key: str = "Tab") -> None:
        for _ in range(30):
            page.keyboard.press(key)
            if page.evaluate("(s) => document.activeElement.matches(s)", selector):
                return
        pytest.fail(f"{key} never reached {selector}")

    tab_to("#gallery a")
    outline = "getComputedStyle(document.activeElement).outlineStyle"
    assert page.evaluate(outline) == "solid"
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowUp")
    name = page.evaluate("document.activeElement.title")
    assert name == page.locator("#gallery a").nth(1).get_attribute("title")
    page.keyboard.press("Enter")
    neighbours(page)
    expect(page.locator("#results-title")).to_be_focused()
    tab_to("#region-start", "Shift+Tab")
    page.keyboard.press("Enter")
    expect(page.locator(".region-body")).to_be_focused()
    neighbours(page)
    with page.expect_response("**/search"):
        page.keyboard.press("ArrowLeft")
        page.keyboard.press("Shift+ArrowDown")
    assert "region=0.23,0.33,0.73,0.83" in page.evaluate("location.hash")
    tab_to(".grip.se")
    with page.expect_response("**/search"):
        page.keyboard.press("ArrowRight")
    assert "region=0.23,0.33,0.75,0.83" in page.evaluate("location.hash")
    expect(page.locator("#status")).to_contain_text("neighbours, the best with score")
    page.keyboard.press("Escape")
    expect(page.locator("#region")).to_be_hidden()
    expect(page.locator("#region-start")).to_be_focused()
    tab_to("input[name=space]")
    with page.expect_request("**/search") as asked:
        page.keyboard.press("ArrowLeft")
    assert sent(asked.value)["space"] == "mid"
    neighbours(page)
    tab_to("#neighbours a")
    page.keyboard.press("End")
    page.keyboard.press("Enter")
    neighbours(page)
    page.keyboard.press("Escape")
    expect(page.locator("#gallery-view")).to_be_visible()


def test_more_neighbours_follow_page_by_page(visit: Visit, pictures: Pictures) -> None:
    page = visit.open()
    page.locator("#gallery a").first.click()
    assert len(neighbours(page)) == 24
    page.get_by_role("button", name="Show more").press("Enter")
    expect(page.locator("#neighbours .card")).to_have_count(len(pictures) - 1)
    expect(page.locator("#neighbours a").nth(24)).to_be_focused()
    expect(page.get_by_role("button", name="Show more")).to_have_count(0)
    names = [name for name, _ in neighbours(page)]
    assert len(set(names)) == len(names)


def test_an_empty_collection_explains_itself_and_takes_pictures(
    visit: Visit, service: str, pictures: Pictures, tmp_path: Path
) -> None:
    page = visit.open(f"#/{new_collection(service)}")
    expect(page.get_by_role("heading", name="No pictures yet")).to_be_visible()
    (tmp_path / "letter.png").write_text("no picture at all")
    files = [pictures["discs-0.png"], tmp_path / "letter.png", pictures["checks-0.png"]]
    with page.expect_file_chooser() as chooser:
        page.click("#add-first")
    chooser.value.set_files(files)
    expect(page.locator("#gallery .card")).to_have_count(2)
    expect(page.locator(".task-line")).to_have_text("Done · 3 of 3")
    page.locator(".task summary").click()
    expect(page.locator(".task .errors")).to_contain_text("letter.png")
    page.get_by_role("button", name="Dismiss").click()
    expect(page.locator(".task")).to_have_count(0)
    page.set_input_files("#add-files", [pictures["discs-0.png"], pictures["discs-1.png"]])
    expect(page.locator(".task-line")).to_have_text("Done · 2 of 2 · 1 already there")
    expect(page.locator("#gallery .card")).to_have_count(3)


def test_pictures_dropped_on_an_empty_collection_are_added(
    visit: Visit, service: str, pictures: Pictures
) -> None:
    page = visit.open(f"#/{new_collection(service)}")
    expect(page.get_by_role("heading", name="No pictures yet")).to_be_visible()
    carried = transfer(page, *(pictures[f"checks-{n}.png"] for n in range(10)))
    page.dispatch_event("body", "dragenter", {"dataTransfer": carried})
    expect(page.locator("[data-drop=search]")).to_be_hidden()
    page.dispatch_event("[data-drop=add]", "drop", {"dataTransfer": carried})
    expect(page.locator("#gallery .card")).to_have_count(10)


def test_an_archive_becomes_a_job_whose_progress_streams_in(visit: Visit, service: str) -> None:
    page = visit.open(f"#/{new_collection(service)}")
    packed = archive(40, broken=["bad/torn.jpg"])
    with page.expect_request("**/events") as streamed:
        page.set_input_files(
            "#add-files",
            {"name": "holiday.zip", "mimeType": "application/zip", "buffer": packed},
        )
    assert streamed.value.resource_type == "fetch"  # an EventSource could send no key
    expect(page.locator(".task-title")).to_contain_text("Indexing holiday.zip")
    expect(page.locator(".task-line")).to_have_text("Done · 41 of 41", timeout=30_000)
    expect(page.locator("#gallery .card")).to_have_count(40)
    page.locator(".task summary", has_text="1 picture could not be indexed").click()
    expect(page.locator(".task .errors")).to_contain_text("bad/torn.jpg")


def test_a_running_job_shows_rate_and_time_left_and_can_be_cancelled(
    visit: Visit, service: str
) -> None:
    page = visit.open(f"#/{new_collection(service)}")
    page.set_input_files(
        "#add-files",
        {"name": "many.zip", "mimeType": "application/zip", "buffer": archive(2000)},
    )
    running = re.compile(r"^[\d,]+ of 2,000 · [\d.]+ per second · [\d.]+ (s|min) left( · |$)")
    expect(page.locator(".task-line")).to_have_text(running, timeout=30_000)
    page.get_by_role("button", name="Cancel").click()
    expect(page.locator(".task-line")).to_contain_text("Cancelled", timeout=30_000)


def test_problems_are_told_as_sentences(visit: Visit) -> None:
    page = visit.open()
    expect(page.locator("#gallery .card").first).to_be_visible()
    page.set_input_files(
        "#search-files", {"name": "a.png", "mimeType": "image/png", "buffer": b"hello"}
    )
    sentence = page.get_by_role("alert").locator("p")
    expect(sentence).to_have_text(re.compile(r"^[A-Z].*[.!?]$"))
    expect(page.locator("#stage-note")).to_be_visible()
    visit.expect_error("status of 415")
    page.evaluate("location.hash = '#/default?item=nobody'")
    expect(page.get_by_role("alert").locator("code")).to_have_text("item-unknown")
    visit.expect_error("status of 404")
    page.evaluate("location.hash = '#/default?upload=99'")
    expect(page.get_by_role("alert")).to_contain_text("choose it again")
    page.evaluate("location.hash = '#/nowhere'")
    expect(page.get_by_role("alert")).to_contain_text("There is no collection 'nowhere'")
    page.evaluate("location.hash = '#/default'")
    expect(page.locator("#gallery .card").first).to_be_visible()


def test_a_service_that_went_away_is_said_to_be_away(visit: Visit) -> None:
    page = visit.open()
    expect(page.locator("#gallery .card").first).to_be_visible()
    visit.expect_error("INTERNET_DISCONNECTED")
    page.context.set_offline(True)
    page.locator("#gallery a").first.click()
    expect(page.get_by_role("alert")).to_contain_text("does not answer")
    page.context.set_offline(False)
    page.get_by_role("button", name="Try again").click()
    assert neighbours(page)


def test_pictures_that_are_not_kept_are_shown_by_name(
    visit: Visit, service: str, pictures: Pictures
) -> None:
    name = new_collection(service, keep="nothing")
    page = visit.open(f"#/{name}")
    page.set_input_files("#add-files", [pictures["discs-0.png"], pictures["discs-1.png"]])
    expect(page.locator("#gallery .card.bare")).to_have_count(2)
    page.locator("#gallery a").first.click()
    expect(page.locator("#stage-note")).to_be_visible()
    assert len(neighbours(page)) == 1
    visit.expect_error("status of 404")


@pytest.mark.parametrize("width", [360, 820, 1440])
def test_nothing_is_wider_than_the_screen(visiting: Visits, width: int) -> None:
    page = visiting(width, 780).open()
    excess = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    expect(page.locator("#gallery .card").first).to_be_visible()
    assert page.evaluate(excess) == 0
    page.locator("#gallery a", has_text="stripes-0.png").click()
    neighbours(page)
    stage = page.locator("#stage").bounding_box()
    assert stage["width"] / stage["height"] == pytest.approx(130 / 190, rel=0.01)
    page.get_by_role("radio", name="Mix").check()
    neighbours(page)
    assert page.evaluate(excess) == 0


def test_dark_mode_is_dark_and_light_mode_is_light(visiting: Visits) -> None:
    for scheme, dark in (("dark", True), ("light", False)):
        page = visiting(color_scheme=scheme).open()
        expect(page.locator("#notices")).to_be_visible()
        for part in ("body", ".notice", "#add"):
            colours = page.locator(part).first.evaluate(
                "(e) => [getComputedStyle(e).backgroundColor, getComputedStyle(e).color]"
            )
            paper, ink = (_luminance(colour) for colour in colours)
            assert (paper < ink) is dark
            assert _contrast(paper, ink) >= 4.5


def _luminance(colour: str) -> float:
    """Relative luminance of `rgb(r, g, b)`, 0…1 (WCAG 2.2)."""
    shares = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
    linear = [s / 12.92 if s <= 0.04045 else ((s + 0.055) / 1.055) ** 2.4 for s in shares]
    return sum(weight * s for weight, s in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def _contrast(one: float, other: float) -> float:
    """Contrast ratio, 1…21 (WCAG 2.2)."""
    return (max(one, other) + 0.05) / (min(one, other) + 0.05)


def test_nothing_moves_for_those_who_want_less_motion(visiting: Visits) -> None:
    page = visiting(reduced_motion="reduce").open()
    page.locator("#gallery a").first.click()
    neighbours(page)
    assert page.evaluate("document.getAnimations().length") == 0
    assert (
        page.locator(".frame img").first.evaluate(
            "(image) => getComputedStyle(image).animationName"
        )
        == "none"
    )


def test_a_region_never_leaves_the_picture_nor_vanishes(visit: Visit) -> None:
    page = visit.open()
    worst = page.evaluate("""async () => {
      const { dragged, between } = await import("/static/region.js");
      const any = () => Math.random() * 3 - 1;
      let [outside, smallest] = [0, 1];
      for (let turn = 0; turn < 20000; turn++) {
        let region = between([any(), any()], [any(), any()]);
        for (const grip of ["move", "nw", "ne", "sw", "se"])
          region = dragged(region, grip, any(), any());
        outside = Math.max(outside, ...region.map((share) => Math.max(-share, share - 1)));
        smallest = Math.min(smallest, region[2] - region[0], region[3] - region[1]);
      }
      return [outside, smallest];
    }""")
    assert worst[0] <= 1e-9
    assert worst[1] >= 0.05 - 1e-9
