"""The demo as a person uses it, in headless Chromium; nothing may leave the machine."""

from __future__ import annotations

import io
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("gradio", reason="the demo needs gradio (pip install 'modeling-ulip2[demo]')")
pytest.importorskip("faiss", reason="the demo needs faiss-cpu (pip install 'modeling-ulip2[demo]')")


playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright (pip install playwright)")
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
if CHROMIUM is None:
    pytest.skip("no browser is installed (Debian: apt-get install chromium)", allow_module_level=True)

DESKTOP, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
ROOMS = ("Search", "Classify", "Caption", "Embed", "Map", "About")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as session:
        chromium = session.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--use-gl=swiftshader", "--enable-unsafe-swiftshader"]
        )
        yield chromium
        chromium.close()


@pytest.fixture
def open_page(browser: Any, server: str) -> Iterator[Any]:
    """Opens the demo in a window of a size; afterwards no page may have asked another host, or met an error."""
    foreign: list[str] = []
    failures: list[str] = []
    pages: list[Any] = []

    def open_(size: dict[str, int] = DESKTOP, theme: str = "light") -> Any:
        page = browser.new_page(viewport=size)
        page.set_default_timeout(60_000)
        own = (server.rstrip("/"), "data:", "blob:")
        page.on("request", lambda request: request.url.startswith(own) or foreign.append(request.url))
        page.on("pageerror", lambda error: failures.append(str(error)))
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
    cards = page.locator(".shapes .thumbnail-item")
    cards.first.wait_for()
    return cards


def pixels(image: bytes) -> np.ndarray:
    """(H, W, 3) of a screenshot."""
    return np.asarray(Image.open(io.BytesIO(image)).convert("RGB")).astype(int)


def pixels_that_differ(image: bytes) -> int:
    """How many are not of the colour of the lower right corner."""
    found = pixels(image)
    return int((np.abs(found - found[-2, -2]).sum(axis=-1) > 30).sum())


def test_search_and_turn_a_shape(open_page: Any):
    page = open_page()
    cards = find(page, "a red chair")
    assert cards.count() == 12
    cards.nth(1).click()
    page.get_by_text("licence unknown").or_(page.get_by_text("CC0")).first.wait_for()
    canvas = page.locator(".model3D canvas").first
    canvas.wait_for()
    canvas.scroll_into_view_if_needed()
    area = canvas.bounding_box()
    for _ in range(60):  # drawn by software, it takes its time
        if pixels_that_differ(before := page.screenshot(clip=area)) > 2000:
            break
        page.wait_for_timeout(500)
    assert pixels_that_differ(before) > 2000
    page.mouse.move(area["x"] + 200, area["y"] + 200)
    page.mouse.down()
    page.mouse.move(area["x"] + 320, area["y"] + 220, steps=5)
    page.mouse.up()
    page.wait_for_timeout(1500)
    assert page.screenshot(clip=area) != before
    page.get_by_role("button", name="More like this").click()
    page.get_by_text("Most like").wait_for()


def test_examples_and_clear(open_page: Any):
    page = open_page()
    page.get_by_role("button", name="a lamp").click()
    page.get_by_text("Nearest to “a lamp”").wait_for()
    page.get_by_role("button", name="Clear", exact=True).click()
    page.get_by_text("Describe what you are looking for").wait_for()
    assert page.get_by_label("Words").first.input_value() == ""


def test_upload_and_classify(open_page: Any, box: Path):
    page = open_page()
    panel = room(page, "Classify")
    panel.locator("input[type=file]").first.set_input_files(str(box))
    panel.get_by_text("box").first.wait_for()
    panel.get_by_role("button", name="Classify", exact=True).click()
    panel.get_by_text("%").first.wait_for()
    shares = [int(text.rstrip("%")) for text in panel.get_by_text("%").all_inner_texts()]
    assert len(shares) == 3 and abs(sum(shares) - 100) <= 2


def test_a_broken_file_is_told_in_words(open_page: Any, tmp_path: Path):
    (tmp_path / "broken.glb").write_text("I am no shape")
    page = open_page()
    panel = room(page, "Embed")
    panel.locator("input[type=file]").first.set_input_files(str(tmp_path / "broken.glb"))
    panel.get_by_text("broken").first.wait_for()
    panel.get_by_role("button", name="Embed", exact=True).click()
    toast = page.get_by_text("broken.glb cannot be used")
    toast.wait_for()
    assert "/tmp" not in toast.inner_text()


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


def test_a_sentence_and_a_question(open_page: Any, box: Path):
    page = open_page()
    panel = room(page, "Caption")
    panel.get_by_role("button", name="What colour is it?").click()
    page.get_by_text("Press Describe first").wait_for()
    panel.locator("input[type=file]").first.set_input_files(str(box))
    panel.get_by_text("box").first.wait_for()
    panel.get_by_role("button", name="Describe", exact=True).click()
    answers = panel.locator(".message.bot")
    panel.get_by_text("describe the 3d model.").wait_for()
    answers.first.wait_for()
    question = panel.get_by_label("Question")
    question.fill("what is it")
    question.press("Enter")
    panel.get_by_text("what is it", exact=True).wait_for()
    answers.nth(1).wait_for()
    assert all(text.strip() for text in answers.all_inner_texts()) and question.input_value() == ""


def test_the_map_shows_what_lies_under_the_pointer(open_page: Any):
    page = open_page()
    room(page, "Map")
    page.get_by_text("Hover over a point to see it").wait_for()
    canvas = page.locator("#map canvas, #map svg").first
    canvas.wait_for()
    area = canvas.bounding_box()
    picture = page.locator(".vg-tooltip img")
    for step in range(900):
        row, column = divmod(step, 30)
        page.mouse.move(area["x"] + area["width"] * column / 30, area["y"] + area["height"] * row / 30)
        if picture.count() and picture.first.is_visible():
            break
    picture.first.wait_for()
    assert picture.first.evaluate("image => image.naturalWidth") > 0
    tooltip = page.locator(".vg-tooltip").first.inner_text()
    assert any(name in tooltip for name in ("chair", "lamp", "table")) and "axis" not in tooltip


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
    cards = page.locator(".shapes .thumbnail-item")
    cards.first.wait_for()
    for _ in range(40):
        if page.evaluate("document.activeElement.classList.contains('thumbnail-item')"):
            break
        page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.locator(".model3D canvas").first.wait_for()


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_no_room_is_wider_than_a_phone(open_page: Any, theme: str):
    page = open_page(PHONE, theme)
    assert (pixels(page.screenshot())[-2, -2].sum() < 200) == (theme == "dark")
    find(page, "a chair")
    for name in ROOMS:
        room(page, name)
        page.wait_for_timeout(500)
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"], name
    page.get_by_text("Attribution of all 12 shapes").first.wait_for()
