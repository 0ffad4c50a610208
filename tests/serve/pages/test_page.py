"""The page: what people see, click and share."""

import re
from html import unescape
from urllib.parse import urlencode

import pytest

from ...captioned import NAMES, pictures


def show(running, path, **fields):
    return running.get(path + ("?" + urlencode(fields) if fields else ""), follow_redirects=True)


def shown_ids(html):
    return [unescape(name) for name in re.findall(r'class="note id" title="([^"]*)"', html)]


def test_a_picture_that_is_sent_gets_an_address_that_can_be_shared(running, png):
    sent = running.post("/search", files={"image": ("a.png", png(3))}, follow_redirects=False)
    assert sent.status_code == 303
    address = sent.headers["location"]
    page = show(running, address)
    assert page.status_code == 200 and shown_ids(page.text)[0] == "dogs/03.png"
    assert "24 images" in page.text and "90%" in page.text
    small = show(running, f"/upload{address.removeprefix('/')}")
    assert small.headers["content-type"] == "image/png"


def test_an_image_that_is_clicked_is_the_next_query(running):
    page = show(running, "/", id="cats/00.png", k=6)
    ids = shown_ids(page.text)
    assert len(ids) == 6 and "cats/00.png" not in ids
    links = [unescape(link) for link in re.findall(r'class="frame" href="([^"]*)"', page.text)]
    following = show(running, links[0])
    assert following.status_code == 200 and len(shown_ids(following.text)) == 24


def test_filters_are_made_from_the_metadata(running):
    page = show(running, "/catalogue")
    assert re.search(r'<select name="f.label">.*<option>cats</option><option>dogs', page.text)
    assert 'name="f.price.from"' in page.text and "f.sha256" not in page.text
    cats = show(running, "/catalogue", **{"f.label": "cats", "f.price.from": 10, "f.price.to": 20})
    assert sorted(shown_ids(cats.text)) == ["cats/12.png", "cats/16.png", "cats/20.png"]
    assert "<option selected>cats</option>" in cats.text
    answer = show(running, "/", id="dogs/01.png", **{"f.label": "cats"}, filter="price < 9")
    assert sorted(shown_ids(answer.text)) == ["cats/00.png", "cats/04.png", "cats/08.png"]
    for text in ("cheap", "nan", "1e999"):
        wrong = show(running, "/catalogue", **{"f.price.from": text})
        assert wrong.status_code == 400 and f"&#39;{text}&#39; is no number" in wrong.text


def test_words_filter_the_catalogue_and_a_search(running):
    page = show(running, "/catalogue", words="cats 0")
    assert sorted(shown_ids(page.text)) == ["cats/00.png", "cats/04.png", "cats/08.png"]
    assert "3 images, best matches first" in page.text and 'value="cats 0"' in page.text
    answer = show(running, "/", id="dogs/01.png", words="cats", **{"f.price.to": 9})
    assert sorted(shown_ids(answer.text)) == ["cats/00.png", "cats/04.png", "cats/08.png"]
    none = show(running, "/catalogue", words="horses")
    assert none.status_code == 200 and "No image matches" in none.text
    wrong = show(running, "/catalogue", words="*")
    assert wrong.status_code == 400 and "no letter or digit" in wrong.text


def test_words_are_searched_by_alone_and_together_with_a_picture(running_with_words):
    running = running_with_words
    start = show(running, "/").text
    assert 'name="text"' in start and "Or say what to find" in start
    page = show(running, "/", text=" green xyzzy cucumber ", k=6).text
    assert {name.split("/")[0] for name in shown_ids(page)} == {"cucumber"}
    assert "6 images for “green xyzzy cucumber”" in page and "have “xyzzy”: left out" in page
    assert "probability" not in page and "/compare" not in page and "full-text" not in page
    assert "/why?text=green+xyzzy+cucumber&amp;hit=" in page
    assert "“bananas”: read as “banana”" in show(running, "/", text="bananas").text
    stored = show(running, "/", id=NAMES[0], text="red apple", k=6).text
    assert NAMES[0] in shown_ids(stored) and 'value="red apple"' in stored
    assert "6 images for the picture with “red apple”" in stored
    sent = running.post("/search", files={"image": ("a.png", pictures()[0])})
    both = show(running, sent.headers["location"] + "&text=red+apple&k=6").text
    assert {name.split("/")[0] for name in shown_ids(both)} == {"apple"}


def test_unknown_words_alone_are_told_on_the_page(running_with_words):
    page = show(running_with_words, "/", text="<xyzzy>")
    assert page.status_code == 400 and "No image&#39;s texts have “xyzzy”" in page.text
    assert "<xyzzy>" not in page.text


def test_without_a_text_encoder_the_page_says_what_answered(running):
    page = show(running, "/", text="cats").text
    assert len(shown_ids(page)) == 10 and "Found by full-text search" in page
    assert "/why" not in page
    assert 'name="text"' not in show(running, "/", id="cats/00.png").text.partition("</div>")[2]


def test_why_explains_words_and_a_picture_with_words(running_with_words):
    for query in ({"text": "red apple"}, {"id": NAMES[0], "text": "red apple"}):
        page = show(running_with_words, "/why", hit=NAMES[1], **query)
        assert page.status_code == 200 and "“red apple”" in page.text
        assert "Beginnings of 3 numbers" in page.text
    missing = show(running_with_words, "/why", hit=NAMES[1])
    assert missing.status_code == 404


def test_who_has_no_picture_starts_from_one_of_the_index(running):
    page = show(running, "/")
    assert len(shown_ids(page.text)) == 16 and "Or start from one of these" in page.text


def test_an_image_that_is_asked_with_shows_its_metadata(running):
    page = show(running, "/", id="cats/04.png").text
    assert "<dt>label</dt><dd>cats</dd>" in page and "<dt>price</dt><dd>4.0</dd>" in page
    assert "<dt>price</dt>" not in show(running, "/", id="dogs/03.png").text  # it is NaN


@pytest.mark.parametrize(
    ("path", "status", "text"),
    [
        ("/nothing", 404, "There is no page at this address."),
        ("/static/nothing.css", 404, "There is no page at this address."),
        ("/search", 405, "Method not allowed"),
        ("/?id=dogs/01.png&k=many", 422, "valid integer"),
    ],
)
def test_an_error_is_a_page_for_a_browser_and_a_problem_document_for_a_program(
    running, path, status, text
):
    page = running.get(path, headers={"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"})
    assert page.status_code == status and text in page.text
    assert page.headers["content-type"].startswith("text/html") and "<nav" in page.text
    assert "default-src 'none'" in page.headers["content-security-policy"]
    program = running.get(path)
    assert program.status_code == status and program.json()["status"] == status
    api = running.get("/v1/items?limit=0", headers={"Accept": "text/html"})
    assert api.headers["content-type"] == "application/problem+json"


def test_a_picture_is_asked_for_by_address_where_the_service_fetches(running, png, monkeypatch):
    class Fetcher:
        async def fetch_all(self, urls):
            return [png(3)] * len(urls)

    form = {"url": "https://pictures.example/3.png"}
    assert 'name="url"' not in show(running, "/").text
    refused = running.post("/search/address", data=form, headers={"Accept": "text/html"})
    assert refused.status_code == 400 and "fetches no picture" in refused.text
    monkeypatch.setattr(running.service, "_fetcher", Fetcher())
    assert 'name="url"' in show(running, "/").text
    page = running.post("/search/address", data=form, follow_redirects=True)
    assert page.status_code == 200 and shown_ids(page.text)[0] == "dogs/03.png"


def test_the_catalogue_has_pages(running, monkeypatch):
    monkeypatch.setattr("irgen.serve.pages.page.PER_PAGE", 15)
    first = show(running, "/catalogue")
    assert len(shown_ids(first.text)) == 15 and "1 to 15 of 40" in first.text
    last = show(running, "/catalogue", offset=30)
    assert len(shown_ids(last.text)) == 10
    assert 'rel="prev"' in last.text and 'rel="next"' not in last.text


def test_why_shows_the_beam_level_by_level_with_the_hit_marked(running):
    page = show(running, "/why", id="dogs/01.png", hit="dogs/02.png")
    assert page.status_code == 200
    assert [f"{n} number" in page.text for n in (1, 2, 3, 4)] == [True, True, True, False]
    code = re.search(r"<dt>Code</dt><dd><code>([^<]*)", page.text).group(1).split()
    assert len(code) == 3
    assert "this hit" in page.text or "is not among the likeliest" in page.text


def test_the_code_tree_divides_every_image_at_each_level(running):
    def branches(prefix):
        html = show(running, "/codes", prefix=prefix).text
        counts = [int(count) for count in re.findall(r"(\d+) images?\b(?!</p>)", html)]
        return re.findall(r'href="/codes\?prefix=([\d-]+)"><code>', html), counts

    prefixes, counts = branches("")
    assert sum(counts[-len(prefixes) :]) == 40
    below, of_first = branches(prefixes[0])
    assert sum(of_first[-len(below) :]) == counts[-len(prefixes)]
    assert all(prefix.startswith(f"{prefixes[0]}-") for prefix in below)


def test_methods_stand_side_by_side(running):
    page = show(running, "/compare", id="dogs/01.png", k=5)
    assert page.status_code == 200 and page.text.count("<h2>") == 3
    ids = shown_ids(page.text)
    assert len(ids) == 15 and ids[0] == ids[5] == ids[10] == "dogs/01.png"


def test_the_state_names_the_index_and_its_columns(running):
    page = show(running, "/state").text
    assert "<dd>40</dd>" in page and "<td>price</td><td>Float64</td>" in page


@pytest.mark.parametrize(
    ("path", "status", "text"),
    [
        ("/?id=nothing", 400, "not in the index"),
        ("/?q=0000", 404, "choose it again"),
        ("/?id=dogs/01.png&k=0", 422, "k:"),
        ("/?id=dogs/01.png&filter=x+%3D%3D", 400, "filter"),
        ("/codes?prefix=a", 400, "no code prefix"),
        ("/codes?prefix=99999999999999999999", 400, "no code prefix"),
        ("/codes?prefix=7-7-7-7-7", 400, "a code has 3 numbers"),
        ("/why?id=dogs/01.png&hit=nothing", 400, "not in the index"),
        ("/compare?id=nothing", 404, "not in the index"),
    ],
)
def test_a_mistake_is_told_on_the_page(running, path, status, text):
    page = show(running, path)
    assert page.status_code == status
    assert '<p class="problem" role="alert">' in page.text and text in page.text.lower()


def test_texts_of_a_catalogue_cannot_inject_anything(tmp_path, make_index, png, run_service):
    import polars as pl

    evil = '"><script>alert(1)</script>'
    items = pl.DataFrame({"id": [evil, "b"], "label": [evil, None], "note": [evil, "x"]})
    make_index(tmp_path / "data" / "index", [png(0), png(1)], items, None)
    runs = run_service(tmp_path)
    running = next(runs)
    while running.get("/readyz").status_code != 200:
        pass
    for path in ("/catalogue", "/codes", "/state", "/?id=b", f"/?{urlencode({'id': evil})}"):
        page = running.get(path)
        assert page.status_code == 200 and "<script>alert" not in page.text, path
    form = {"id": "b", "k": 6, "beams": 8, "min_probability": 0}  # as the sliders send it
    assert show(running, "/", **form).status_code == 200  # the index has no calibration
    next(runs, None)
