"""What a person sees: the pages of Prefect's UI in Debian's Chromium."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable

import pytest

pytestmark = pytest.mark.slow

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
SWITCHES = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    "--window-size=1400,1000",
)


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """A browser that is given a path of the UI and a text to wait for; returns the page's text."""
    if not (CHROMIUM and DRIVER):
        pytest.skip("no Chromium: apt-get install chromium chromium-driver")
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for switch in (*SWITCHES, f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"):
        options.add_argument(switch)
    browser = webdriver.Chrome(options=options, service=Service(DRIVER))
    yield browser
    browser.quit()


@pytest.fixture
def read(page, deployed, wait_for) -> Callable[..., str]:
    origin = deployed.url.removesuffix("/api")

    def shown(path: str, *texts: str) -> str:
        page.get(origin + path)

        def text() -> str:
            content: str = page.find_element("tag name", "body").text
            return content if all(text in content for text in texts) else ""

        return str(wait_for(text, 120, interval=0.5))

    return shown


def _click(page, wait_for, label: str) -> None:
    def tabs():
        found = page.find_elements("xpath", f"//li[normalize-space(.)='{label}']")
        return [tab for tab in found if tab.is_displayed()]

    wait_for(tabs, 120, interval=0.5)[0].click()


def _shows(page, wait_for, *texts: str) -> None:
    wait_for(
        lambda: all(text in page.find_element("tag name", "body").text for text in texts),
        120,
        interval=0.5,
    )


def test_the_runs_page_has_its_arms_and_results(read, page, first_run, wait_for):
    title = "digits generations=2 pollution_sizes=32 seed=0 training.kimg=0.5"
    read(f"/runs/flow-run/{first_run}", title, "Completed")
    _click(page, wait_for, "Subflow Runs")
    _shows(page, wait_for, "standard |D_s|=32", "sims omega=1 |D_s|=32")
    _click(page, wait_for, "Artifacts")
    _shows(page, wait_for, "-curves", "-metrics", "-report")


def test_the_arms_page_has_its_generations_and_their_samples(
    read, page, deployed, first_run, wait_for
):
    arm = deployed.family(first_run)[-1]
    read(f"/runs/flow-run/{arm}", "t=01 train base", "t=02 evaluate")
    _click(page, wait_for, "Artifacts")
    _shows(page, wait_for, "-samples", "-metrics", "t = 2 of 2")


def test_samples_table_and_curves_are_drawn(read, page, deployed, first_run):
    by_type = {
        (row["type"], key.rpartition("-")[2]): row
        for key, rows in deployed.artifacts(first_run).items()
        for row in rows
    }
    for kind, texts in [
        (("markdown", "samples"), ("generation 2 of 2", "fid", "precision")),
        (("markdown", "curves"), ("The whole report:",)),
    ]:
        read(f"/artifacts/artifact/{by_type[kind]['id']}", *texts)
        widths = [
            page.execute_script("return arguments[0].naturalWidth", image)
            for image in page.find_elements("css selector", "img[src^='data:image/png']")
        ]
        assert [width > 50 for width in widths] == [True], kind
    read(f"/artifacts/artifact/{by_type['table', 'metrics']['id']}", "fid", "recall")


def test_a_training_shows_how_far_it_is(read, deployed, killed_run):
    (progress,) = deployed.artifacts(killed_run[0])["progress-train-base"]
    said = (
        r"t=01 train base: [\d.]+ of 2000\.0 kimg(, loss [\d.]+)?, \d+ img/s, [\d.]+ (min|h) left"
    )
    assert re.fullmatch(said, progress["description"])
    read(f"/artifacts/artifact/{progress['id']}", "of 2000.0 kimg, ", "Progress")


def test_the_run_form_has_choices_and_descriptions(read, deployed):
    deployment = deployed.api("GET", "/deployments/name/sims-loop/digits")["id"]
    read(
        f"/deployments/deployment/{deployment}/run",
        "Guidance strengths, an arm of each guided method each",
        "generations",
        "overrides",
    )
