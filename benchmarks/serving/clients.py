"""Run clients that search at once, and read their figures: locust with ``locustfile.py``."""

import csv
import os
import subprocess
import sys
import tempfile
from pathlib import Path

LOCUSTFILE = Path(__file__).with_name("locustfile.py")


def search(url: str, pictures: Path, users: int, seconds: float) -> dict[str, float]:
    """Search by the files in ``pictures`` with that many clients; return requests a second,
    milliseconds (p50, p99), and numbers of requests, of those that failed, and of those refused."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "locust", "--locustfile", str(LOCUSTFILE), "--headless"]
        command += ["--host", url, "--users", str(users), "--spawn-rate", str(users)]
        command += ["--reset-stats", "--run-time", f"{seconds:.0f}s", "--csv", f"{folder}/clients"]
        environment = os.environ | {"IRGEN_PICTURES": str(pictures)}
        subprocess.run(command, env=environment, capture_output=True, check=False)
        with Path(folder, "clients_stats.csv").open() as file:
            rows = {row["Name"]: row for row in csv.DictReader(file)}
    row = rows["search"]
    return {
        "rate": float(row["Requests/s"]),
        "p50": float(row["50%"]),
        "p99": float(row["99%"]),
        "requests": int(row["Request Count"]),
        "failures": int(row["Failure Count"]),
        "refused": int(rows["refused"]["Request Count"]) if "refused" in rows else 0,
    }
