"""Messages without secrets, whatever a stranger has written into them."""

import time

import pytest

from irgen.errors import redact


@pytest.mark.parametrize(
    "text",
    ["x" * 2_000_000, "http://" * 300_000, "a://" * 300_000, "x:" * 1_000_000, "@" * 2_000_000,
     "https://a?" * 200_000, "http://" + "a@" * 1_000_000],
    ids=lambda text: text[:12],
)  # fmt: skip
def test_the_time_grows_with_the_text_and_not_with_its_square(text):
    started = time.process_time()
    redact(text)
    assert time.process_time() - started < 5


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://me:pw@host/a.csv?X=1 is away", "https://***@host/a.csv?*** is away"),
        ("('https://a/b?c', 's3://k:v@x')", "('https://a/b?***', 's3://***@x')"),
        ("http://u@h/http://y?q#z", "http://***@h/http://y?***"),
        ("http://a#b?c me@host what?", "http://a#b?c me@host what?"),
    ],
)
def test_passwords_and_queries_of_addresses_are_replaced(text, shown):
    assert redact(text) == shown
