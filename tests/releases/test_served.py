"""The registered model answers over HTTP, and says what is wrong with what it is sent."""

import base64
import json
import os
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from irgen.index.index import Index

from .. import server_program


class Served:
    """``mlflow models serve`` on loopback."""

    def __init__(self, uri: str, folder) -> None:
        self.port = server_program.find_free_port()
        command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", uri]
        command += ["--env-manager", "local", "--port", str(self.port), "--host", "127.0.0.1"]
        self.log = folder / "serve.log"
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        tools = os.environ | {"PATH": path}
        self.process = server_program.start(command, self.log, tools, folder)

    def wait(self) -> None:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and self.process.poll() is None:
            with suppress(OSError), urllib.request.urlopen(f"{self.url}/ping", timeout=5):
                return
            time.sleep(0.2)
        pytest.fail(f"the model is not served: {self.log.read_text()}")

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def ask(self, body: object) -> tuple[int, dict]:
        """Status and answer to a JSON body."""
        content = {"Content-Type": "application/json"}
        request = urllib.request.Request(
            f"{self.url}/invocations", json.dumps(body).encode(), content
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)

    def stop(self) -> None:
        server_program.kill(self.process)


@pytest.fixture
def served(tmp_path) -> Iterator:
    """Serve a model until the test ends."""
    running: list[Served] = []

    def start(uri: str) -> Served:
        running.append(Served(uri, tmp_path))
        running[-1].wait()
        return running[-1]

    yield start
    for each in running:
        each.stop()


@pytest.mark.slow
def test_the_champion_answers_with_ids_and_scores_and_refuses_garbage(
    project, release, mlflow_server, served, monkeypatch
):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_server.uri)
    mlflow_server.start()
    project.set("release", model="irgen")
    assert release()["settled"]
    (project.root / "data").rename(project.root / "gone")  # it needs nothing of the project
    with Index.open(project.store / "champion") as index:
        expected = index.search([project.query], 5)
    project.store.rename(project.root / "gone too")
    model = served("models:/irgen@champion")

    image = base64.b64encode(project.query).decode()
    status, answer = model.ask({"dataframe_records": [{"image": image}], "params": {"k": 5}})
    assert status == 200, answer
    (hits,) = answer["predictions"]
    assert hits["ids"] == expected.ids[0].tolist()
    assert hits["scores"] == pytest.approx(expected.scores[0].tolist(), abs=1e-4)
    status, answer = model.ask({"inputs": {"image": [image, f"data:image/png;base64,{image}"]}})
    assert status == 200 and answer["predictions"][0] == answer["predictions"][1]
    assert len(answer["predictions"][0]["ids"]) == 10

    for garbage, why in [
        ("not base64!", "image 1: expected the bytes of an image file in base64"),
        (base64.b64encode(b"no picture").decode(), "image 1: not an image of a known format"),
        ("", "image 1: the file is empty"),
    ]:
        status, answer = model.ask({"inputs": {"image": [image, garbage]}})
        assert status == 400 and why in answer["message"], answer
        assert "Traceback" not in json.dumps(answer)
    status, answer = model.ask({"inputs": {"picture": [image]}})
    assert status == 400 and "image" in answer["message"]
    status, answer = model.ask({"inputs": {"image": [image]}, "params": {"k": 0}})
    assert status == 400 and "k: 0 is not within 1" in answer["message"]


def test_a_model_that_points_to_its_index_finds_it_in_the_bucket_when_it_is_gone(
    project, release, buckets
):
    import boto3
    import pandas as pd
    from mlflow.pyfunc import load_model

    from irgen.tracking import mlflow_store

    boto3.client("s3", endpoint_url=buckets.uri).create_bucket(Bucket="shop")
    remote = {"remote": "s3://shop/indexes", "endpoint": buckets.uri}
    project.set("release", model="irgen", max_model_megabytes=0, **remote)
    assert release()["settled"]
    source = mlflow_store.connect(project.root).get_model_version("irgen", "1").source
    table = pd.DataFrame({"image": [base64.b64encode(project.query).decode()]})
    local = load_model(source).predict(table, params={"k": 3})
    assert buckets.count("GET", "safetensors") == 0
    project.store.rename(project.root / "gone")
    fetched = load_model(source).predict(table, params={"k": 3})
    assert fetched == local and len(fetched[0]["ids"]) == 3
    buckets.reset()
    with pytest.raises(Exception, match=r"s3://shop/indexes/0001"):
        load_model(source)
