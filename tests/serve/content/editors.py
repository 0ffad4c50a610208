"""Clients that change images of their own at random, and know what was acknowledged."""

import json
import random
from collections.abc import Callable, Mapping
from threading import Event, Thread
from typing import Any
from zlib import crc32

import httpx

SECONDS = 60
REFUSALS = {429, 503}  # of a service that is busy, or whose index is being replaced


class Editor:
    """A client. ``alive``: its images that are in the index, with their versions, as far as it was
    told; ``pending``: what they are if the request that is under way is obeyed."""

    def __init__(self, name: str, png: Callable[[int], bytes]) -> None:
        self.name, self._png, self._random = name, png, random.Random(name)
        self.alive: dict[str, int] = {}
        self.pending: dict[str, int] | None = None
        self.done = self.refused = self._version = 0

    def edit(self, url: str, stop: Event) -> None:
        """Send one change after the other, until ``stop`` is set or the service dies."""
        with httpx.Client(base_url=url, timeout=SECONDS) as http:
            while not stop.is_set():
                self._version += 1
                try:
                    self._send(http, self._random.choice(["add", "add", "upsert", "remove"]))
                except httpx.TransportError:
                    return

    def _send(self, http: httpx.Client, action: str) -> None:
        if action == "remove" and self.alive:
            ids = self._random.sample(sorted(self.alive), min(len(self.alive), 2))
            self.pending = {name: v for name, v in self.alive.items() if name not in ids}
            answer = http.delete("/v1/items", params={"id": ids})
        else:
            count = self._random.randint(1, 3)
            ids = [f"{self.name}/{self._version}-{number}" for number in range(count)]
            if action == "upsert":
                ids[:1] = sorted(self.alive)[:1] or ids[:1]
            self.pending = self.alive | dict.fromkeys(ids, self._version)
            answer = http.post("/v1/items", **self._make_form(ids, action == "upsert"))
        if answer.status_code == 200:
            self.alive, self.done = self.pending, self.done + 1
        else:
            assert answer.status_code in REFUSALS, answer.text
            self.refused += 1
        self.pending = None

    def _make_form(self, ids: list[str], upsert: bool) -> dict[str, Any]:
        contents = [self._png(crc32(f"{name} {self._version}".encode())) for name in ids]
        items = [{"id": name, "metadata": {"price": self._version}} for name in ids]
        return {
            "files": [("images", ("a.png", content)) for content in contents],
            "data": {"items": json.dumps(items)},
            "params": {"upsert": upsert},
        }

    def settle(self, prices: Mapping[str, float]) -> None:
        """Compare the index, price by id, with what was acknowledged: of the change that was under
        way there is all or nothing."""
        own = {name: price for name, price in prices.items() if name.startswith(f"{self.name}/")}
        assert own in (self.alive, self.pending), (own, self.alive, self.pending)
        self.alive, self.pending = {name: int(price) for name, price in own.items()}, None


def start(editors: list[Editor], url: str) -> tuple[list[Thread], Event]:
    """Let editors work at the same time; give their threads, and what stops them."""
    stop = Event()
    threads = [Thread(target=editor.edit, args=[url, stop]) for editor in editors]
    for thread in threads:
        thread.start()
    return threads, stop
