"""The API's description holds for whatever is sent: requests are made up from it by thousands."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ..conftest import serve_writable

# A request can fit the description and not the index: an id that is none, a file that is no image.
# And the web framework names in Allow only the methods of the first of a path's routes.
NOT_CHECKED = "positive_data_acceptance,allow_header_conformance"


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_no_request_gets_a_server_error_or_an_answer_that_is_not_described(
    tmp_path: Path, make_project: Callable, run_service: Callable, seed: int
) -> None:
    root = make_project(tmp_path / "project")
    with serve_writable(run_service, root) as running:
        command = [sys.executable, "-m", "schemathesis.cli", "run"]
        command += [f"{running.url}/v1/openapi.json", "--exclude-checks", NOT_CHECKED, "-n", "100"]
        command += ["--seed", str(seed), "--continue-on-failure", "--generation-database", "none"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=900)
        if done.returncode:
            pytest.fail(done.stdout[-20_000:] + done.stderr[-2000:], pytrace=False)
        assert running.get("/readyz").status_code == 200
