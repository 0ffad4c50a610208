"""Clients of the service, for locust: each searches by one of some image files, again and again."""

import os
import random
from pathlib import Path

import requests
from locust import FastHttpUser, task


def encode(content: bytes) -> tuple[bytes, dict[str, str]]:
    """Return body and headers of an upload, made once: clients are to take little of the cores."""
    files = {"images": ("query", content)}
    prepared = requests.Request("POST", "http://localhost", files=files).prepare()
    return prepared.body, {"Content-Type": prepared.headers["Content-Type"]}


UPLOADS = [
    encode(path.read_bytes()) for path in sorted(Path(os.environ["IRGEN_PICTURES"]).glob("*"))
]


class Searcher(FastHttpUser):
    """One client, which asks as soon as it has its answer. An answer 429 counts as refused, any
    other but 200 as a failure."""

    @task
    def search(self) -> None:
        """Search by an image."""
        body, headers = random.choice(UPLOADS)
        with self.client.post(
            "/v1/search/upload?k=10", body, headers=headers, name="search", catch_response=True
        ) as answer:
            if answer.status_code == 429:
                answer.request_meta["name"] = "refused"
                answer.success()
