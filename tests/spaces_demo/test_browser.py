"""The demo as a person uses it, in headless Chromium; nothing may leave the machine."""

from __future__ import annotations

import io
import re
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("gradio", reason="the demo needs gradio (pip install 'modeling-ulip2[demo]')")
pytest.importorskip("faiss", reason="the demo needs faiss-cpu (pip install 'modeling-ulip2[demo]')")

from rooms.captioner import Captioner  # noqa: E402
from rooms.engine import Engine  # noqa: E402

playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright (pip install playwright)")
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
if CHROMIUM is None:
    pytest.skip("no browser is installed (Debian: apt-get install chromium)", allow_module_level=True)

PATIENCE = 120_000  # milliseconds; on a machine that does other work, too
expect = playwright.expect
expect.set_options(timeout=PATIENCE)

DESKTOP, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
CARDS = ".shapes:not(.samples) .thumbnail-item"
ROOMS = ("Search", "Classify", "Caption", "Embed", "Map", "Scene", "About")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as session:
        chromium = session.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--use-gl=swiftshader", "--enable-unsafe-swiftshader"]
        )
        yield chromium
        chromium.close()


def of_a_viewer_taken_away(error: Any) -> bool:
    """Whether it is the error of gradio's viewer of shapes that is removed while it still loads: nobody sees it."""
    own = re.search(r"/assets/(lib|Canvas3D)-", error.stack or "")
    return "postProcessManager" in str(error) or (
        own is not None and "of null (reading 'addEventListener')" in str(error)
    )


@pytest.fixture
def open_page(browser: Any, server: str) -> Iterator[Any]:
    """Opens the demo in a window of a size; afterwards no page may have asked another host, or met an error."""
    foreign: list[str] = []
    failures: list[str] = []
    pages: list[Any] = []

    def open_(size: dict[str, int] = DESKTOP, theme: str = "light") -> Any:
        page = browser.new_page(viewport=size)
        page.set_default_timeout(PATIENCE)
        own = (server.rstrip("/"), "data:", "blob:")
        page.on("request", lambda request: request.url.startswith(own) or foreign.append(request.url))
        page.on("pageerror", lambda error: of_a_viewer_taken_away(error) or failures.append(f"{error}\n{error.stack}"))
        page.goto(f"{server}?__theme={theme}")
        page.get_by_label("Words").first.wait_for()
        pages.append(page)
        return page

    yield open_
    for page in pages:
        page.close()
    assert not foreign and not failures


def room(page: Any, name: str) -> Any:
    tab = page.get_by_role("tab", name=name, exact=True)
    if not tab.filter(visible=True).count():  # on a phone the last ones are in a menu
        page.locator(".overflow-menu > button").first.click()
        page.locator(".overflow-dropdown button").filter(has_text=name).click()
    else:
        tab.filter(visible=True).first.click()
    return page.get_by_role("tabpanel").filter(visible=True).first


def find(page: Any, words: str) -> Any:
    """Searches as a person at a keyboard would, and gives the pictures."""
    box = page.get_by_label("Words").first
    box.fill(words)
    box.press("Enter")
    page.get_by_text(f"Nearest to “{words}”").wait_for()
    cards = page.locator(CARDS)
    cards.first.wait_for()
    return cards


def pixels(image: bytes) -> np.ndarray:
    """(H, W, 3) of a screenshot."""
    return np.asarray(Image.open(io.BytesIO(image)).convert("RGB")).astype(int)


def pixels_that_differ(image: bytes) -> int:
    """How many are not of the color of the lower right corner."""
    found = pixels(image)
    return int((np.abs(found - found[-2, -2]).sum(axis=-1) > 30).sum())


def seen(locator: Any) -> float:
    """The share of an element's height that is in the window, once nothing moves any more."""
    page, area = locator.page, None
    for _ in range(40):
        before, area = area, locator.bounding_box()
        if area is not None and area == before:
            break
        page.wait_for_timeout(150)
    assert area is not None
    height = page.evaluate("innerHeight")
    return (min(area["y"] + area["height"], height) - max(area["y"], 0)) / area["height"]


def turn(page: Any, canvas: Any) -> None:
    """Waits for a shape to be drawn, and drags it."""
    area = canvas.bounding_box()
    for _ in range(60):  # drawn by software, it takes its time
        if pixels_that_differ(before := page.screenshot(clip=area)) > 2000:
            break
        page.wait_for_timeout(500)
    assert pixels_that_differ(before) > 2000
    page.mouse.move(area["x"] + 100, area["y"] + 200)
    page.mouse.down()
    page.mouse.move(area["x"] + 220, area["y"] + 220, steps=5)
    page.mouse.up()
    page.wait_for_timeout(1500)
    assert page.screenshot(clip=area) != before


@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_search_and_turn_a_shape(open_page: Any, size: dict[str, int]):
    page = open_page(size)
    cards = find(page, "a red chair")
    expect(cards).to_have_count(12)
    assert seen(cards.first) > 0.9
    cards.nth(1).click()
    page.get_by_text("CC0").first.wait_for()
    canvas = page.locator(".model3D canvas").first
    canvas.wait_for()
    assert seen(canvas) > 0.9  # without a hand at the wheel
    if size == DESKTOP:  # beside the pictures, wherever these are
        cards.last.scroll_into_view_if_needed()
        assert seen(canvas) > 0.9 and seen(cards.last) > 0.9
        turn(page, canvas)
    page.get_by_role("button", name="More like this").first.click()
    page.get_by_text("Most like").wait_for()
    expect(page.get_by_label("Words").first).to_have_value("")  # what was asked before is asked no more
    expect(page.get_by_role("button", name="like “")).to_be_visible()
    expect(page.locator(".shapes .thumbnail-item.selected")).to_have_count(0)
    page.get_by_label("Words").first.fill("but blue")
    page.get_by_role("button", name="Search", exact=True).click()
    page.get_by_text("” + “but blue”").wait_for()


def test_home_shows_shapes_and_keeps_them(open_page: Any):
    page = open_page(PHONE)
    cards = page.locator(CARDS)
    expect(cards).to_have_count(12)
    assert seen(cards.first) > 0
    words, button = page.get_by_label("Words").first, page.get_by_role("button", name="Search", exact=True)
    assert 0 < button.bounding_box()["y"] - words.bounding_box()["y"] < 120
    expect(page.get_by_text("Read as English").first).to_be_visible()
    button.click()
    page.get_by_text("Write some words, or add a photo").wait_for()
    assert cards.count() == 12 and page.get_by_text("Error", exact=True).count() == 0
    find(page, "a lamp")
    words.fill(" ")
    words.press("Enter")
    page.get_by_text("Write some words, or add a photo").last.wait_for()
    assert cards.count() == 12 and page.get_by_text("Nearest to “a lamp”").is_visible()


def test_examples_and_start_over(open_page: Any):
    page = open_page()
    page.get_by_role("button", name="a lamp").click()
    page.get_by_text("Nearest to “a lamp”").wait_for()
    page.get_by_role("button", name="Start over", exact=True).click()
    page.get_by_text("Describe what you are looking for").wait_for()
    expect(page.get_by_label("Words").first).to_have_value("")
    expect(page.locator(CARDS)).to_have_count(12)
    page.get_by_role("button", name="Add a photo or a 3D file").click()
    expect(page.get_by_role("button", name="Start over")).to_have_count(1)  # no other control says so


def test_upload_and_classify(open_page: Any, box: Path):
    page = open_page()
    panel = room(page, "Classify")
    panel.locator("input[type=file]").first.set_input_files(str(box))
    panel.locator("canvas").wait_for()  # what was sent is shown before anything is asked
    panel.get_by_role("button", name="Classify", exact=True).click()
    panel.get_by_text("%").first.wait_for()
    expect(panel.get_by_text("%")).to_have_count(3)
    shares = [int(text.rstrip("%")) for text in panel.get_by_text("%").all_inner_texts()]
    assert len(shares) == 3 and abs(sum(shares) - 100) <= 2


def test_progress_is_drawn(open_page: Any, engine: Engine, monkeypatch: pytest.MonkeyPatch):
    go_on = threading.Event()
    encode = engine.labels._encode_text

    def slow(texts: list[str]) -> torch.Tensor:
        assert go_on.wait(PATIENCE / 1000)
        return encode(texts)

    monkeypatch.setattr(engine.labels, "_encode_text", slow)
    page = open_page(PHONE)
    panel = room(page, "Classify")
    panel.locator(".samples .thumbnail-item").nth(1).click()
    panel.locator("canvas").wait_for()
    panel.get_by_label("Labels").first.click()
    page.get_by_role("option", name="My own labels").click()
    panel.get_by_role("textbox", name="My own labels").fill("first unheard of, second unheard of, third unheard of")
    panel.get_by_role("button", name="Classify", exact=True).click()
    try:
        bar = page.get_by_text("Embedding 3 labels")
        bar.wait_for()
        assert seen(bar) > 0.9  # on a phone, too
    finally:
        go_on.set()
    panel.get_by_text("%").first.wait_for()


def test_what_is_wrong_with_a_file_is_one_line(open_page: Any, tmp_path: Path):
    (tmp_path / "broken.glb").write_text("I am no shape")
    (tmp_path / "gray.obj").write_text("mtllib gone.mtl\nv 0 0 0\nv 1 0 0\nv 0 1 0\nusemtl red\nf 1 2 3\n")
    page = open_page()
    panel = room(page, "Embed")
    panel.locator("input[type=file]").first.set_input_files(str(tmp_path / "gray.obj"))
    note = panel.locator(".note")
    note.wait_for()
    assert "gone.mtl" in note.inner_text() and "/tmp" not in note.inner_text()
    assert note.bounding_box()["y"] > panel.locator("canvas").bounding_box()["y"]
    panel.get_by_role("button", name="Clear").or_(panel.get_by_label("Remove")).first.click()
    panel.locator("input[type=file]").first.set_input_files(str(tmp_path / "broken.glb"))
    failure = panel.locator(".failure")
    failure.wait_for()
    assert failure.inner_text().startswith("broken.glb cannot be used: ") and "\n" not in failure.inner_text()
    assert "/tmp" not in failure.inner_text()
    panel.get_by_role("button", name="Embed", exact=True).click()
    page.locator(".toast-body").get_by_text("broken.glb cannot be used").wait_for()


def test_take_an_embedding_home(open_page: Any, box: Path, tmp_path: Path):
    page = open_page()
    panel = room(page, "Embed")
    panel.locator("input[type=file]").first.set_input_files(str(box))
    panel.get_by_text("box").first.wait_for()
    panel.get_by_role("button", name="Embed", exact=True).click()
    button = panel.get_by_role("link", name="Download .npy").or_(panel.get_by_role("button", name="Download .npy"))
    button.first.wait_for()
    with page.expect_download() as download:
        button.first.click()
    download.value.save_as(tmp_path / "box.npy")
    vector = np.load(tmp_path / "box.npy")
    assert vector.shape == (24,) and np.linalg.norm(vector) == pytest.approx(1, abs=1e-5)


def test_a_sentence_and_a_question(open_page: Any, box: Path, captioner: Captioner, monkeypatch: pytest.MonkeyPatch):
    written, answer = threading.Event(), captioner.answer

    def slow(*arguments: Any) -> Iterator[str]:
        for said in answer(*arguments):
            yield said
            assert written.wait(PATIENCE / 1000)

    monkeypatch.setattr(captioner, "answer", slow)
    page = open_page()
    panel = room(page, "Caption")
    panel.get_by_role("button", name="What color is it?").click()
    page.get_by_text("Press Describe first").wait_for()
    panel.locator("input[type=file]").first.set_input_files(str(box))
    panel.get_by_text("box").first.wait_for()
    panel.get_by_role("button", name="Describe", exact=True).click()
    answers = panel.locator(".message.bot")
    panel.get_by_text("describe the 3d model.").wait_for()
    answers.first.wait_for()
    begun, question = answers.first.inner_text(), panel.get_by_label("Question")
    question.fill("what is it")  # while the model still writes
    written.set()
    expect(answers.first).not_to_have_text(begun)
    expect(question).to_have_value("what is it")
    question.press("Enter")
    panel.get_by_text("what is it", exact=True).wait_for()
    answers.nth(1).wait_for()
    expect(question).to_have_value("")
    assert all(text.strip() for text in answers.all_inner_texts())


@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_the_map_opens_what_is_clicked(open_page: Any, engine: Engine, size: dict[str, int]):
    page = open_page(size)
    panel = room(page, "Map")
    page.get_by_text("Point at one to see it").wait_for()
    circles = panel.locator("#map circle")
    expect(circles).to_have_count(12)
    assert panel.locator("#map svg").text_content().strip() == ""  # no numbers
    circle = circles.last  # no other lies over it
    name = engine.index.shapes["name"][int(circle.get_attribute("data-row"))]
    circle.hover()
    picture = panel.locator("#map .tip img")
    picture.wait_for()
    assert picture.evaluate("image => image.decode().then(() => image.naturalWidth)") > 0
    assert name in panel.locator("#map .tip").inner_text()
    circle.click()
    canvas = panel.locator(".model3D canvas")
    canvas.wait_for()
    assert seen(canvas) > 0.9
    expect(panel.locator(".stage").get_by_text(name).first).to_be_visible()
    panel.get_by_role("button", name="More like this").click()
    page.get_by_text(f"Most like “{name}”").wait_for()
    expect(page.get_by_role("tab", name="Search", exact=True).first).to_have_attribute("aria-selected", "true")


def test_keyboard_only(open_page: Any):
    page = open_page()
    page.get_by_role("tab", name="Search").focus()
    page.keyboard.press("Tab")
    for _ in range(12):
        if page.evaluate("document.activeElement.tagName") == "TEXTAREA":
            break
        page.keyboard.press("Tab")
    page.keyboard.type("a blue lamp")
    page.keyboard.press("Enter")
    # The first page has cards, too: one of them, opened now, would be closed by the result.
    page.get_by_text("Nearest to “a blue lamp”").wait_for()
    page.locator(CARDS).first.wait_for()
    for _ in range(40):
        if page.evaluate("document.activeElement.classList.contains('thumbnail-item')"):
            break
        page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.locator(".model3D canvas").first.wait_for()


# Every visible text with less than 4.5 to 1 between its color and what lies behind it (WCAG 2.1, criterion 1.4.3).
CONTRAST = """() => {
  const parse = (text) => (text.match(/[\\d.]+/g) || [0, 0, 0, 0]).map(Number);
  const mix = (a, top, below) => [0, 1, 2].map((i) => a * top[i] + (1 - a) * below[i]);
  const over = (top, below) => mix(top[3] ?? 1, top, below);
  const light = (color) => {
    const [r, g, b] = color.map((v) => { v /= 255; return v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (element) => {
    const layers = [];
    for (let e = element; e; e = e.parentElement) layers.unshift(parse(getComputedStyle(e).backgroundColor));
    return layers.reduce((below, top) => over(top, below), [255, 255, 255]);
  };
  const poor = [], ratio = (color, back) => {
    const [a, b] = [light(over(color, back)), light(back)].sort((x, y) => y - x);
    return (a + 0.05) / (b + 0.05);
  };
  const look = (element, color, text) => {
    const back = behind(element), found = ratio(parse(color), back);
    if (found < 4.5) poor.push(`${found.toFixed(2)} ${text.slice(0, 40)} ${color} on ${back.map(Math.round)}`);
  };
  const walker = document.createTreeWalker(document.querySelector(".gradio-container"), NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement, text = walker.currentNode.textContent.trim();
    if (!text || !element.checkVisibility({opacityProperty: true, visibilityProperty: true})) continue;
    const large = parseFloat(getComputedStyle(element).fontSize) >= 24;
    if (!large && !element.closest("button.primary, .selected, [aria-selected=true], style, script")) {
      look(element, getComputedStyle(element).color, text);
    }
  }
  for (const field of document.querySelectorAll("textarea, input")) {
    if (field.placeholder && field.checkVisibility()) {
      look(field, getComputedStyle(field, "::placeholder").color, field.placeholder);
    }
  }
  return poor;
}"""


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_every_room_fits_a_phone_and_can_be_read(open_page: Any, theme: str):
    page = open_page(PHONE, theme)
    assert (pixels(page.screenshot())[-2, -2].sum() < 200) == (theme == "dark")
    page.get_by_role("button", name="Add a photo or a 3D file").click()
    find(page, "a chair")
    for name in ROOMS:
        room(page, name)
        page.wait_for_timeout(500)
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"], name
        assert page.evaluate(CONTRAST) == [], name
    page.get_by_text("Attribution of all 12 shapes").first.wait_for()
