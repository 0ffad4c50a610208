"""The page in a real browser: drop, click, filter, go back; no error, no request elsewhere."""

import base64
import json
import shutil
from contextlib import contextmanager
from pathlib import Path

import pytest

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
from selenium.webdriver.common.action_chains import ActionChains  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402
from selenium.webdriver.support.ui import WebDriverWait  # noqa: E402

pytestmark = pytest.mark.slow
SECONDS = 60
OWN = "data:", "chrome:"
AXE = Path(__file__).parents[3] / ".cache/axe/node_modules/axe-core/axe.min.js"
VIEWS = [
    "/?text=cats",
    *("/", "/?id=cats/00.png", "/catalogue", "/catalogue?words=cats", "/codes", "/state"),
    "/why?id=cats/00.png&hit=cats/04.png",
    "/compare?id=cats/00.png",
]
EDITS = ["/add", "/remove?id=cats/00.png"]


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


@contextmanager
def visit(browser, url):
    """Open a page; afterwards nothing was wrong in the browser and nothing went elsewhere."""
    browser.set_window_size(1300, 900)
    browser.get("about:blank")  # ends what the page of the test before still asks for
    browser.get_log("performance"), browser.get_log("browser")
    browser.get(url)
    yield browser
    errors = [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
    assert not errors
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    sent = [
        e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"
    ]
    assert sent and not [address for address in sent if not address.startswith((url, *OWN))]


@pytest.fixture
def page(browser, running):
    """Yield the browser on the start page of a read-only service."""
    with visit(browser, running.url) as page:
        yield page


@contextmanager
def emulate(browser, *, phone=False, dark=False):
    """Make the browser one of a phone, or one whose user prefers dark pages."""
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
    if phone:
        screen = {"width": 390, "height": 844, "deviceScaleFactor": 2, "mobile": True}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
    yield
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


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
    clicked, name = ids(page), page.find_element(By.CSS_SELECTOR, ".asked figcaption").text
    page.find_element(By.TAG_NAME, "summary").click()
    choice = page.find_element(By.NAME, "f.label")
    choice.find_element(By.XPATH, "option[text()='cats']").click()
    page.find_element(By.NAME, "words").send_keys("0")
    page.find_element(By.XPATH, "//button[text()='Update']").click()
    wait(page, lambda: "f.label=cats" in page.current_url)
    assert {*ids(page)} == {"cats/00.png", "cats/04.png", "cats/08.png"} - {name}
    assert "words=0" in page.current_url
    assert "filter=" not in page.current_url  # empty fields stay out of an address
    page.back()
    wait(page, lambda: "f.label" not in page.current_url)
    assert ids(page) == clicked
    assert page.find_element(By.NAME, "filter").is_enabled()
    page.back()
    page.back()
    wait(page, lambda: "q=" not in page.current_url)
    assert "Drop a picture here" in page.find_element(By.ID, "drop").text
    page.get(dropped)  # somebody opens the address that was shared
    assert ids(page)[0] == "dogs/03.png"


def test_words_find_images_of_the_catalogue_and_a_click_goes_on(page, running):
    page.find_element(By.LINK_TEXT, "Catalogue").click()
    wait(page, lambda: "/catalogue" in page.current_url)
    page.find_element(By.NAME, "words").send_keys("dogs 1", Keys.ENTER)
    wait(page, lambda: "words=dogs" in page.current_url)
    assert len(ids(page)) == 8 and all(name.startswith("dogs/1") for name in ids(page))
    page.find_element(By.CSS_SELECTOR, ".tile .frame").click()
    wait(page, lambda: "id=" in page.current_url and ids(page))


def test_words_find_images_and_a_picture_is_searched_together_with_them(
    browser, running_with_words
):
    with visit(browser, running_with_words.url) as page:
        page.find_element(By.NAME, "text").send_keys("green cucumber", Keys.ENTER)
        wait(page, lambda: "text=green+cucumber" in page.current_url)
        assert ids(page)[0].startswith("cucumber/")
        assert "for “green cucumber”" in page.find_element(By.TAG_NAME, "h1").text
        page.find_element(By.CSS_SELECTOR, ".tile .frame").click()
        wait(page, lambda: "id=cucumber" in page.current_url and ids(page))
        together = page.find_elements(By.NAME, "text")[1]
        together.send_keys("red apple", Keys.ENTER)
        wait(page, lambda: "text=red+apple" in page.current_url)
        assert "id=cucumber" in page.current_url and ids(page)
        page.find_element(By.LINK_TEXT, "Why?").click()
        wait(page, lambda: "/why" in page.current_url)
        assert "red apple" in page.find_element(By.CSS_SELECTOR, ".pair figure").text


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


def test_a_search_needs_no_mouse(page):
    """Tab to an image of the start page, then to the words, then to a link to the catalogue."""

    def tab_to(condition):
        for _ in range(60):
            ActionChains(page).send_keys(Keys.TAB).perform()
            if condition(page.switch_to.active_element):
                return
        pytest.fail("it cannot be reached")

    tab_to(lambda element: "frame" in (element.get_attribute("class") or ""))
    ActionChains(page).send_keys(Keys.ENTER).perform()
    wait(page, lambda: "id=" in page.current_url and ids(page))
    tab_to(lambda element: element.get_attribute("name") == "words")
    ActionChains(page).send_keys("cats", Keys.ENTER).perform()
    wait(page, lambda: "words=cats" in page.current_url)
    assert ids(page) and all(name.startswith("cats/") for name in ids(page))
    tab_to(lambda element: element.text == "Catalogue")
    outline = page.execute_script("return getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"


@pytest.mark.parametrize("path", [*VIEWS, *EDITS])
def test_nothing_sticks_out_on_a_phone(browser, writable, path):
    with visit(browser, writable.url), emulate(browser, phone=True):
        browser.get(writable.url + path)
        width = browser.execute_script("return document.documentElement.scrollWidth")
    assert width <= 390


@pytest.mark.parametrize("look", [{}, {"dark": True}, {"phone": True}], ids=["", "dark", "phone"])
def test_axe_finds_no_barrier_in_any_view(browser, writable, look):
    if not AXE.exists():
        pytest.skip(f"axe-core is not in {AXE.parents[2]}: see .ci/run for how to install it")
    barriers = {}
    with visit(browser, writable.url), emulate(browser, **look):
        for path in [*VIEWS, *EDITS]:
            browser.get(writable.url + path)
            for details in browser.find_elements(By.TAG_NAME, "summary"):
                details.click()
            browser.execute_script(AXE.read_text())
            result = browser.execute_async_script("axe.run().then(arguments[0])")
            assert result["passes"], path
            serious = [
                (barrier["id"], barrier["nodes"][0]["html"][:200])
                for barrier in result["violations"]
                if barrier["impact"] in ("serious", "critical", "moderate")
            ]
            barriers |= {path: serious} if serious else {}
    assert barriers == {}


def test_a_picture_is_added_seen_and_removed(browser, writable, png, tmp_path):
    (tmp_path / "bird.png").write_bytes(png(70))
    with visit(browser, writable.url) as page:
        page.find_element(By.LINK_TEXT, "Catalogue").click()
        page.find_element(By.LINK_TEXT, "Add to the catalogue").click()
        page.find_element(By.NAME, "image").send_keys(str(tmp_path / "bird.png"))
        page.find_element(By.NAME, "m.label").send_keys("birds")
        page.find_element(By.XPATH, "//button[text()='Add']").click()
        wait(page, lambda: "id=bird.png" in page.current_url)
        assert page.find_element(By.CSS_SELECTOR, "[role=status]").text.startswith(
            "The image is in"
        )
        shown = page.find_element(By.CSS_SELECTOR, ".asked img")
        wait(page, lambda: shown.get_property("naturalWidth") > 0)
        drop(page, png(70))
        assert ids(page)[0] == "bird.png"
        page.find_element(By.CSS_SELECTOR, ".tile .frame").click()
        wait(page, lambda: "id=bird.png" in page.current_url)
        page.find_element(By.LINK_TEXT, "Remove from the catalogue").click()
        wait(page, lambda: "/remove" in page.current_url)
        page.find_element(By.XPATH, "//button[text()='Remove']").click()
        wait(page, lambda: "/catalogue" in page.current_url)
        assert "is removed" in page.find_element(By.CSS_SELECTOR, "[role=status]").text
        assert len(ids(page)) == 40 and "bird.png" not in ids(page)


def test_an_error_is_said_in_words(browser, running):
    """A file that is none, a filter that is wrong, and a page that is not there."""
    browser.get(running.url)
    browser.execute_script(
        """
        const data = new DataTransfer();
        data.items.add(new File(["a"], "list.txt", {type: "text/plain"}));
        document.dispatchEvent(new DragEvent("drop", {dataTransfer: data, bubbles: true}));
        """
    )
    assert "list.txt is no picture" in browser.find_element(By.ID, "drop").text
    for path, text in (
        ("/catalogue?filter=colour+=+1", "colour"),
        ("/catalogue?words=***", "no letter or digit"),
        ("/nothing", "There is no page at this address."),
        ("/add", "only reads"),
    ):
        browser.get(running.url + path)
        assert text in browser.find_element(By.CSS_SELECTOR, "[role=alert]").text
        assert browser.find_elements(By.CSS_SELECTOR, "header nav a")
    severe = [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
    assert all(entry["source"] == "network" for entry in severe)  # the statuses of those pages


def test_an_image_has_a_text_and_a_field_a_name(page, running):
    for path in ("/", "/?id=cats/00.png", "/catalogue", "/why?id=cats/00.png&hit=cats/04.png"):
        page.get(running.url + path)
        bare = page.execute_script(
            """return [...document.querySelectorAll('img:not([alt]), img[alt=""]')].length
            + [...document.querySelectorAll('input:not([type=hidden]), select')].filter(
                (field) => !field.labels?.length && !field.ariaLabel).length"""
        )
        assert bare == 0, path
