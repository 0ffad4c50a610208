"""Define the clients that locust runs: each searches by one image file after the other."""

import os
import random
from pathlib import Path

import requests
from locust import FastHttpUser, task


def encode(content: bytes) -> tuple[bytes, dict[str, str]]:
    """Return body and headers of an upload. Made once, so that clients take little of the cores."""
    files = {"images": ("query", content)}
    prepared = requests.Request("POST", "http://localhost", files=files).prepare()
    return prepared.body, {"Content-Type": prepared.headers["Content-Type"]}


UPLOADS = [
    encode(path.read_bytes()) for path in sorted(Path(os.environ["IRGEN_PICTURES"]).glob("*"))
]


class Searcher(FastHttpUser):
    """Search again as soon as an answer has come. Status 429 counts as refused, any other but 200
    as a failure."""

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
