"""What the report says of its build: date, times, MLflow's run, the served release."""

from irgen.commands.build_facts import describe_build, read_stage_seconds
from irgen.tracking import locations, run_log


def write_log(root, build, stage, seconds, status="FINISHED", start=0):
    path = locations.run_logs(root) / build / f"{stage}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    begin = {"time": 1000 * start, "stage": stage}
    end = {"time": 1000 * (start + seconds), "status": status}
    run_log.write(path, [("begin", begin), ("end", end)])
    return path


def test_a_stage_took_as_long_as_when_it_last_ran_to_its_end(tmp_path):
    write_log(tmp_path, "old", "tokenizer", 100)
    write_log(tmp_path, "old", "retriever", 50)
    write_log(tmp_path, "new", "tokenizer", 20, start=1000)
    write_log(tmp_path, "newer", "tokenizer", 7, status="FAILED", start=2000)
    write_log(tmp_path, "newer", "trials", 7).with_name("index.jsonl").write_text("{damaged\n")
    seconds = read_stage_seconds(tmp_path, ["tokenizer", "retriever", "index"])
    assert seconds == {"tokenizer": 20, "retriever": 50}


def test_a_new_project_knows_the_date_alone(tmp_path):
    (fact,) = describe_build(tmp_path, ["tokenizer"])
    assert fact[0] == "Made"


def test_times_and_the_run_in_mlflow_are_told(tmp_path, monkeypatch):
    monkeypatch.setenv("IRGEN_BUILD", "run-7")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow.example:5000")
    path = write_log(tmp_path, "run-7", "tokenizer", 150)
    run_log.write_state(path, done=True, build=["3", "abc"])
    facts = {name: (text, url) for name, text, url in describe_build(tmp_path, ["tokenizer"])}
    assert facts["Time to build"] == ("2 min: tokenizer 2 min", "")
    assert facts["MLflow"][1].startswith("http://mlflow.example:5000/#/experiments/3/runs/abc")
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    facts = {name: (text, url) for name, text, url in describe_build(tmp_path, ["tokenizer"])}
    text, url = facts["MLflow"]
    assert "make ui" in text and url.startswith("http://127.0.0.1:5000/#/experiments/3/runs/abc")
