"""Measure the speed of the service with and without batches, while many clients search at once.

    pip install locust
    python benchmarks/serve.py --root . --users 50 --seconds 30

``--root``: a project whose index is served; its pictures are the queries. Prints requests a second,
percentiles of their time, and how many times as many requests batches answer. Run it on a machine
that does nothing else: the clients take their share of the cores.
"""

import argparse
import csv
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from contextlib import contextmanager, suppress
from pathlib import Path

from tabulate import tabulate

from irgen.client import Client

HERE = Path(__file__).parent
PORT, START_SECONDS, PICTURES = 8123, 120, 50


@contextmanager
def service(root: Path, batch: int):
    """Run a service that answers at most ``batch`` queries together."""
    command = [sys.executable, "-m", "irgen", "serve", "--root", str(root), "--port", str(PORT)]
    command += ["--batch", str(batch)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            wait_until_ready()
            yield
        finally:
            process.terminate()


def wait_until_ready() -> None:
    """Return when the service answers; fail after two minutes."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{PORT}/readyz"):
            return
        time.sleep(0.1)
    sys.exit("the service did not start")


def fetch_pictures(folder: Path) -> None:
    """Save pictures of the index as the clients' files."""
    with Client(f"http://127.0.0.1:{PORT}") as client:
        for number, item in enumerate(client.items(limit=PICTURES)):
            (folder / f"{number:03d}").write_bytes(client.picture(item["id"]))


def measure(users: int, seconds: int, pictures: Path, results: Path) -> dict[str, str]:
    """Return locust's figures of one run."""
    command = [sys.executable, "-m", "locust", "-f", str(HERE / "serve_clients.py"), "--headless"]
    command += ["--host", f"http://127.0.0.1:{PORT}", "--users", str(users)]
    command += ["--spawn-rate", str(users), "--run-time", f"{seconds}s", "--csv", str(results)]
    subprocess.run(
        command,
        env=os.environ | {"IRGEN_PICTURES": str(pictures)},
        capture_output=True,
        check=False,
    )
    with Path(f"{results}_stats.csv").open() as file:
        return next(row for row in csv.DictReader(file) if row["Name"] == "search")


def main() -> None:
    """Measure both ways, in turn, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--root", type=Path, default=Path())
    parser.add_argument("--users", type=int, default=50)
    parser.add_argument("--seconds", type=int, default=30)
    arguments = parser.parse_args()
    rows, rates = [], {}
    with tempfile.TemporaryDirectory() as temporary:
        pictures = Path(temporary) / "pictures"
        pictures.mkdir()
        for batch in (1, 32, 1, 32):
            with service(arguments.root, batch):
                if not any(pictures.iterdir()):
                    fetch_pictures(pictures)
                results = Path(temporary) / f"batch-{batch}"
                figures = measure(arguments.users, arguments.seconds, pictures, results)
            rates.setdefault(batch, []).append(float(figures["Requests/s"]))
            names = ("Requests/s", "50%", "99%", "Request Count", "Failure Count")
            rows.append([batch, *(figures[name] for name in names)])
    headers = ("batch", "requests/s", "p50 ms", "p99 ms", "requests", "failures")
    print(tabulate(rows, headers, floatfmt=".1f", tablefmt="github"))
    print(f"with batches {max(rates[32]) / max(rates[1]):.1f} times as many requests a second")


if __name__ == "__main__":
    main()
