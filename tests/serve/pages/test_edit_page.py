"""The page: add an image with its metadata, remove one, and what is said if that fails."""

import re
from html import unescape

import pytest

from irgen.index.index import Index
from irgen.releases import own_index

from .test_page import show, shown_ids


def add(running, content=None, name="new.png", **form):
    files = {"image": (name, content)} if content else {"image": ("", b"")}
    return running.post("/add", files=files, data=form, follow_redirects=True)


def metadata(root, name):
    with Index.open(own_index.default_folder(root)) as index:
        return index.view.take(index.view.find_existing([name])).row(0, named=True)


def test_an_image_is_added_with_its_metadata_and_found_at_once(writable, png):
    page = add(writable, png(50), **{"m.label": "birds", "m.price": "12.5"})
    assert page.status_code == 200 and "The image is in the catalogue now." in page.text
    assert page.url.params["id"] == "new.png" and "<dd>birds</dd>" in page.text
    row = metadata(writable.root, "new.png")
    assert (row["label"], row["price"], row["path"]) == ("birds", 12.5, "new.png")
    assert shown_ids(show(writable, "/catalogue", words="birds").text) == ["new.png"]
    assert writable.get("/v1/thumbnail?id=new.png").status_code == 200
    assert "41 images" in page.text


def test_a_picture_that_was_searched_with_is_added_without_choosing_it_again(writable, png):
    results = writable.post("/search", files={"image": ("a.png", png(51))}, follow_redirects=True)
    (link,) = re.findall(r'href="(/add\?q=[^"]*)"', results.text)
    form = show(writable, link)
    q = re.search(r'name="q" value="([^"]*)"', form.text).group(1)
    page = add(writable, q=q, id="birds/51")
    assert page.status_code == 200 and page.url.params["id"] == "birds/51"
    assert metadata(writable.root, "birds/51")["label"] is None


def test_the_form_proposes_what_the_columns_hold(writable):
    form = show(writable, "/add").text
    assert re.search(r'<input type="text" name="m.label"[^>]*list="choices-', form)
    assert "<option>cats</option>" in form and '<input type="number" name="m.price"' in form
    assert "m.sha256" not in form and "m.path" not in form


@pytest.mark.parametrize(
    ("form", "status", "text"),
    [
        ({"id": "cats/00.png"}, 409, "or tick the box to replace it"),
        ({"m.price": "cheap"}, 400, "cheap"),
        ({"m.colour": "red"}, 400, "colour"),
        ({"id": ""}, 400, "decode"),
    ],
)
def test_a_mistake_shows_the_form_again_with_all_that_was_filled_in(
    writable, png, form, status, text
):
    content = b"no picture" if text == "decode" else png(52)
    page = add(writable, content, **{"m.label": "birds"} | form)
    assert page.status_code == status and 'role="alert"' in page.text
    assert text == "decode" or text in unescape(page.text)
    assert 'value="birds"' in page.text and 'name="q"' in page.text  # the picture, too
    assert len(Index.open(own_index.default_folder(writable.root))) == 40


def test_an_image_is_replaced_if_that_is_asked_for(writable, png):
    page = add(writable, png(53), id="cats/00.png", upsert="true", **{"m.label": "birds"})
    assert page.status_code == 200 and "in place of an earlier one" in page.text
    assert metadata(writable.root, "cats/00.png")["label"] == "birds"


def test_without_a_picture_nothing_is_added(writable):
    page = add(writable, id="x")
    assert page.status_code == 400 and "Choose a picture." in page.text


def test_an_image_is_removed_after_a_confirmation(writable):
    page = show(writable, "/", id="cats/04.png")
    (link,) = re.findall(r'href="(/remove\?[^"]*)"', page.text)
    confirmation = show(writable, unescape(link))
    assert "Remove this image from the catalogue?" in confirmation.text
    done = writable.post("/remove", data={"id": "cats/04.png"}, follow_redirects=True)
    assert done.status_code == 200 and "is removed from the catalogue" in done.text
    assert "cats/04.png" not in shown_ids(done.text) and "39 images" in done.text
    again = writable.post("/remove", data={"id": "cats/04.png"})
    assert again.status_code == 404 and 'role="alert"' in again.text
    assert show(writable, unescape(link)).status_code == 404


def test_who_may_only_read_is_offered_no_change(running, png):
    for path in ("/catalogue", "/?id=cats/00.png"):
        assert "/add" not in show(running, path).text and "/remove" not in show(running, path).text
    refused = (
        add(running, png(54)),
        show(running, "/add"),
        show(running, "/remove", id="cats/00.png"),
    )
    refused = *refused, running.post("/remove", data={"id": "cats/00.png"})
    assert all(page.status_code == 403 and "only reads" in page.text for page in refused)


def test_a_page_of_another_site_changes_nothing(writable):
    for headers in ({"Sec-Fetch-Site": "cross-site"}, {"Origin": "http://evil.example"}):
        sent = writable.post("/remove", data={"id": "cats/00.png"}, headers=headers)
        assert sent.status_code == 403
    assert writable.get("/v1/items?limit=1").json()["total"] == 40
