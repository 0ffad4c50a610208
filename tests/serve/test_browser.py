"""The page in a real browser: drop, click, filter, go back; no error, no request elsewhere."""

import base64
import json
import shutil

import pytest

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
from selenium.webdriver.common.action_chains import ActionChains  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402
from selenium.webdriver.support.ui import WebDriverWait  # noqa: E402

pytestmark = pytest.mark.slow
SECONDS = 60


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip(
            "there is no Chromium with its driver: apt-get install chromium chromium-driver"
        )
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    profile = tmp_path_factory.mktemp("profile")
    for argument in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        f"--user-data-dir={profile}",
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    browser = webdriver.Chrome(options, webdriver.ChromeService(driver))
    browser.set_page_load_timeout(SECONDS)
    yield browser
    browser.quit()


@pytest.fixture
def page(browser, running):
    """The browser at the start page; afterwards nothing was wrong and nothing went elsewhere."""
    browser.set_window_size(1300, 900)
    browser.get(running.url)
    yield browser
    errors = [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
    assert not errors
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    sent = [
        e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"
    ]
    assert sent and not [
        url for url in sent if not url.startswith((running.url, "data:", "chrome:"))
    ]


def wait(browser, condition):
    return WebDriverWait(browser, SECONDS).until(lambda _: condition())


def ids(browser):
    return [
        tile.get_attribute("title") for tile in browser.find_elements(By.CSS_SELECTOR, ".tile .id")
    ]


def drop(browser, content):
    """Drop a file on the page, as a hand would."""
    browser.execute_script(
        """
        const bytes = Uint8Array.from(atob(arguments[0]), (c) => c.charCodeAt(0));
        const data = new DataTransfer();
        data.items.add(new File([bytes], "photo.png", {type: "image/png"}));
        document.dispatchEvent(new DragEvent("drop", {dataTransfer: data, bubbles: true}));
        """,
        base64.b64encode(content).decode(),
    )
    wait(browser, lambda: "q=" in browser.current_url and ids(browser))


def test_drop_search_click_filter_share_and_back(page, png):
    drop(page, png(3))
    assert ids(page)[0] == "dogs/03.png"
    dropped = page.current_url
    page.find_elements(By.CSS_SELECTOR, ".tile .frame")[1].click()
    wait(page, lambda: "id=" in page.current_url and ids(page))
    clicked = ids(page)
    page.find_element(By.TAG_NAME, "summary").click()
    choice = page.find_element(By.NAME, "f.label")
    choice.find_element(By.XPATH, "option[text()='cats']").click()
    page.find_element(By.CSS_SELECTOR, ".options button").click()
    wait(page, lambda: "f.label=cats" in page.current_url)
    assert ids(page) and all(name.startswith("cats/") for name in ids(page))
    assert "filter=" not in page.current_url  # empty fields stay out of an address
    page.back()
    wait(page, lambda: "f.label" not in page.current_url)
    assert ids(page) == clicked
    page.get(dropped)  # somebody opens the address that was shared
    assert ids(page)[0] == "dogs/03.png"


def test_why_compare_and_the_code_tree_are_a_click_away(page, png):
    drop(page, png(5))
    page.find_element(By.LINK_TEXT, "Why?").click()
    wait(page, lambda: "/why" in page.current_url)
    assert page.find_element(By.TAG_NAME, "h1").text == "Why this image?"
    page.find_element(By.CSS_SELECTOR, ".branch a").click()
    wait(page, lambda: "/codes" in page.current_url)
    assert page.find_elements(By.CSS_SELECTOR, ".branch .samples img")
    page.back()
    page.back()
    page.find_element(By.LINK_TEXT, "Compare with brute force").click()
    wait(page, lambda: "/compare" in page.current_url)
    assert len(page.find_elements(By.TAG_NAME, "h2")) == 3


def test_everything_can_be_reached_with_the_keyboard(page):
    reached = []
    for _ in range(12):
        ActionChains(page).send_keys(Keys.TAB).perform()
        active = page.switch_to.active_element
        reached.append(active.text or active.get_attribute("name"))
    assert reached[:7] == ["Skip to content", "irgen", "Search", "Catalogue", "Code tree", "State",
                           "image"]  # fmt: skip


@pytest.mark.parametrize("path", ["/", "/catalogue", "/codes", "/state", "/?id=cats/00.png",
                                  "/why?id=cats/00.png&hit=cats/04.png"])  # fmt: skip
def test_nothing_sticks_out_on_a_phone(page, running, path):
    page.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": 390, "height": 844, "deviceScaleFactor": 2, "mobile": True},
    )
    page.get(running.url + path)
    width = page.execute_script("return document.documentElement.scrollWidth")
    page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    assert width <= 390


def test_an_image_has_a_text_and_a_field_a_name(page, running):
    for path in ("/", "/?id=cats/00.png", "/catalogue", "/why?id=cats/00.png&hit=cats/04.png"):
        page.get(running.url + path)
        bare = page.execute_script(
            """return [...document.querySelectorAll('img:not([alt]), img[alt=""]')].length
            + [...document.querySelectorAll('input:not([type=hidden]), select')].filter(
                (field) => !field.labels?.length && !field.ariaLabel).length"""
        )
        assert bare == 0, path
