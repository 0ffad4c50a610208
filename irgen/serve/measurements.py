"""Figures of the service for Prometheus.

Several processes behind one port share a folder of figures, and each answers for all of them
(prometheus_client's multiprocess mode). Counters go on when a process dies and another takes its
place.
"""

import os
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

FOLDER = "PROMETHEUS_MULTIPROC_DIR"  # variable that prometheus_client reads when it is imported

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class Measurements:
    """Counters and distributions of one service, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "irgen_requests",
            "Requests by route and status.",
            ["route", "status"],
            registry=self.registry,
        )
        self.seconds = Histogram(
            "irgen_request_seconds",
            "Seconds of a request, by route.",
            ["route"],
            buckets=SECONDS,
            registry=self.registry,
        )
        self.stage_seconds = Histogram(
            "irgen_search_stage_seconds",
            "Seconds of a search: decode, queue, search.",
            ["stage"],
            buckets=SECONDS,
            registry=self.registry,
        )
        self.batch = Histogram(
            "irgen_batch_queries",
            "Queries that were answered together.",
            buckets=(1, 2, 4, 8, 16, 32, 64),
            registry=self.registry,
        )
        self.waiting = Gauge(
            "irgen_queue_queries",
            "Queries that wait.",
            multiprocess_mode="livesum",
            registry=self.registry,
        )
        self.scores = Histogram(
            "irgen_best_score",
            "Score of the first hit, but for full-text search.",
            buckets=(-1, 0, 0.2, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.999),
            registry=self.registry,
        )
        self.empty = Counter(
            "irgen_empty_answers", "Queries without a hit.", registry=self.registry
        )
        self.queries = Counter(
            "irgen_queries",
            "Queries answered: image, id, text, full_text (words without a text encoder) and "
            "composed (image and words).",
            ["kind"],
            registry=self.registry,
        )
        self.writes = Counter(
            "irgen_writes",
            "Images added, replaced (upsert) or removed by clients.",
            ["action"],
            registry=self.registry,
        )
        self.write_seconds = Histogram(
            "irgen_write_stage_seconds",
            "Seconds of a change: decode, queue, write.",
            ["stage"],
            buckets=SECONDS,
            registry=self.registry,
        )
        self.waiting_writes = Gauge(
            "irgen_queue_writes",
            "Images that wait to be changed.",
            multiprocess_mode="livesum",
            registry=self.registry,
        )
        self.candidate_searches = Counter(
            "irgen_candidate_searches",
            "Searches that a candidate answered, was compared on, or failed on.",
            ["outcome"],
            registry=self.registry,
        )
        self.candidate_overlap = Histogram(
            "irgen_candidate_overlap",
            "Share of the first ten hits that candidate and champion both have.",
            buckets=(0, 0.2, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.999),
            registry=self.registry,
        )
        self.candidate_seconds = Histogram(
            "irgen_candidate_seconds",
            "Seconds of the searches that were compared.",
            ["index"],
            buckets=SECONDS,
            registry=self.registry,
        )
        self.version = Gauge(
            "irgen_release_version",
            "Version of the served release; 0: it is none.",
            multiprocess_mode="livemostrecent",
            registry=self.registry,
        )
        self.images = Gauge(
            "irgen_index_images",
            "Images in the index.",
            multiprocess_mode="livemostrecent",
            registry=self.registry,
        )
        self.swaps = Counter("irgen_swaps", "Indexes opened.", registry=self.registry)

    def text(self) -> bytes:
        """Return all figures, of all processes, in Prometheus' text format."""
        if FOLDER not in os.environ:
            return generate_latest(self.registry)
        registry = CollectorRegistry()
        MultiProcessCollector(registry)
        return generate_latest(registry)


def forget_dead_processes() -> None:
    """Delete gauges of processes that have ended: a queue that is no more has no length."""
    for path in Path(os.environ.get(FOLDER, os.devnull)).glob("gauge_live*_*.db"):
        process = path.stem.rpartition("_")[2]
        if not Path("/proc", process).exists():
            mark_process_dead(process)
