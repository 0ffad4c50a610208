"""Clients of the service, for locust: each searches by one of some image files, again and again."""

import os
import random
from pathlib import Path

from locust import FastHttpUser, task

FILES = [path.read_bytes() for path in sorted(Path(os.environ["IRGEN_PICTURES"]).glob("*"))]


class Searcher(FastHttpUser):
    """One client, which asks as soon as it has its answer."""

    @task
    def search(self) -> None:
        """Search by an image; whatever is not 200 counts as a failure."""
        files = {"images": ("query", random.choice(FILES))}
        self.client.post("/v1/search/upload?k=10", files=files, name="search")
