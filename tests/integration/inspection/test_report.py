"""The HTML report in a browser: complete, with thumbnails, and without network requests."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, sync_playwright

from transfer_platform.data.dataset import open_dataset
from transfer_platform.inspection.preflight import preflight
from transfer_platform.inspection.report import html_page as report_page
from transfer_platform.recipe.schema import DatasetConfig, SplitsConfig

QUIET = ("--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run")


@pytest.fixture
def browser_page() -> Iterator[Page]:
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        pytest.fail("this test needs Chromium: apt-get install chromium")
    with sync_playwright() as playwright:
        root = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = playwright.chromium.launch(executable_path=program, args=[*QUIET, *root])
        yield browser.new_page(viewport={"width": 1200, "height": 900})
        browser.close()


def test_the_page_is_complete_and_makes_no_requests(
    invalid: Path, isolated: Path, expected: dict[str, list[str]], browser_page: Page
) -> None:
    splits = SplitsConfig(train="train", validation=0.2, test="test")
    found, _ = preflight(open_dataset(DatasetConfig(source=str(invalid), splits=splits), invalid))
    file = isolated / "report.html"
    file.write_text(report_page(found, "<b>ants</b> & bees"), encoding="utf-8")
    requests: list[str] = []
    browser_page.on("request", lambda request: requests.append(request.url))
    browser_page.goto(file.as_uri())
    assert [url for url in requests if not url.startswith("data:")] == [file.as_uri()]
    assert browser_page.inner_text("h1") == "<b>ants</b> & bees"
    headings = browser_page.locator("h3").all_inner_texts()
    for kind in expected.keys() - {"unreadable", "unreadable folder"}:  # which are none for root
        assert any(f" {kind} ({len(found.by_kind(kind))})" in heading for heading in headings)
    widths = browser_page.evaluate("[...document.images].map(image => image.naturalWidth)")
    assert len(widths) > 20
    assert min(widths) > 0
    image = browser_page.locator("img").first
    image.scroll_into_view_if_needed()
    box = image.bounding_box()
    assert box is not None
    assert box["width"] > 20
    assert browser_page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


def test_the_target_of_a_refused_link_is_not_shown(plain: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret.jpg"
    secret.write_bytes(next((plain / "train/ant").glob("*.jpg")).read_bytes())
    (plain / "train/ant/link.jpg").symlink_to(secret)
    splits = SplitsConfig(train="train", validation=0.2, test="test")
    found, _ = preflight(open_dataset(DatasetConfig(source=str(plain), splits=splits, on_bad_image="skip"), plain))
    assert [found.name(each.files[0]) for each in found.by_kind("link leading out")] == ["train/ant/link.jpg"]
    shown = report_page(found, "ants")
    assert "train/ant/link.jpg" in shown
    assert "data:image/jpeg" not in shown


def test_file_names_cannot_inject_scripts(plain: Path, isolated: Path, browser_page: Page) -> None:
    name = "<img src=x onerror=document.title='run'>.jpg"
    (plain / "train/ant" / name).write_bytes(b"no image")
    splits = SplitsConfig(train="train", validation=0.2, test="test")
    found, _ = preflight(open_dataset(DatasetConfig(source=str(plain), splits=splits), plain))
    file = isolated / "report.html"
    file.write_text(report_page(found, "Dataset"), encoding="utf-8")
    browser_page.goto(file.as_uri())
    assert browser_page.title() == "Dataset"
    assert browser_page.get_by_text(name).count() == 1
