"""Whole comparisons: what differs is not ranked, what is slower by construction is ranked so, what was done stays."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import namedtuple
from pathlib import Path
from typing import Any

import psutil
import pytest

from pipelines import compare
from pipelines.comparison.folder import ResultsFolder
from pipelines.comparison.results import Results
from pipelines.comparison.session import ComparisonSession
from pipelines.config.load import load_comparison
from tests.support import processes
from tests.support.commands import ROOT, save, start
from tests.support.pythons import needs_streams
from tests.support.waiting import wait_until

ADDED_MS = 2_000
Usage = namedtuple("Usage", "total used free")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that doubles, one that does so for most rows, 300 rows, and the config of a run."""
    import tensorflow as tf

    class Doubles(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="x")])
        def __call__(self, x: Any) -> Any:
            return {"twice": 2 * x}

    class DoublesMost(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="x")])
        def __call__(self, x: Any) -> Any:
            return {"twice": tf.where(tf.math.floormod(x, 100.0) == 7.0, 0.0, 2 * x)}

    place = tmp_path_factory.mktemp("compare")
    save(Doubles(), place / "doubles")
    save(DoublesMost(), place / "most")
    rows = "".join(f"r{number},{number}\n" for number in range(299)) + "r299,not a number\n"
    (place / "rows.csv").write_text("id,x\n" + rows)
    (place / "messages.jsonl").write_text("".join(f'{{"id": "m{n}", "x": {n}}}\n' for n in range(5_000)))
    run = {
        "name": "doubles",
        "source": {"type": "file", "format": "csv", "path": str(place / "rows.csv"), "key": "id"},
        "model": {"path": str(place / "doubles")},
        "output": {"type": "file", "format": "csv", "path": str(place / "out")},
    }
    (place / "run.json").write_text(json.dumps(run))
    stream = run | {
        "source": {"type": "simulated", "path": str(place / "messages.jsonl"), "key": "id"},
        "batching": {"max_rows": 100, "max_wait_ms": 50},
    }
    (place / "stream.json").write_text(json.dumps(stream))
    return place


def comparison(place: Path, name: str, **content: Any) -> str:
    path = place / f"{name}.json"
    path.write_text(json.dumps({"name": name, "folder": str(place / "results"), **content}))
    return str(path)


@pytest.fixture(scope="module")
def batch(folder: Path) -> str:
    grpc = {"type": "endpoint", "protocol": "tf_serving_grpc"}
    ways = {
        "workers": {"model": {"type": "saved_model"}},
        "wrong": {"model": {"type": "saved_model", "path": str(folder / "most")}},
        "far": {"model": grpc, "server": {"latency_ms": ADDED_MS}},
        "job": {"model": {"type": "batch_job"}},
        "gone": {"model": {**grpc, "url": "127.0.0.1:1", "deadline_s": 1}, "max_load": 1},
    }
    return comparison(folder, "ways", config=str(folder / "run.json"), ways=ways, sizes=[900], rounds=1, minutes=20)


@pytest.fixture(scope="module")
def compared(folder: Path, batch: str) -> tuple[int, Results]:
    code = compare.main(["--config", batch])
    return code, Results.model_validate_json((folder / "results" / "ways" / "results.json").read_bytes())


def test_a_way_that_is_wrong_for_some_rows_is_not_ranked(compared: tuple[int, Results]) -> None:
    code, results = compared
    assert code == 3
    (found,) = (each for each in results.parity if each.way == "wrong")
    assert not found.agrees
    assert found.differences[0].over == 3
    assert {each.key for each in found.examples} == {"r7", "r107", "r207"}
    assert "disagrees with workers: 3 rows whose twice differs" in results.rankings[0].not_ranked["wrong"]
    assert "wrong" not in {place.way for place in results.rankings[0].places}


def test_a_way_that_cannot_run_says_why_and_the_others_are_ranked(compared: tuple[int, Results]) -> None:
    _, results = compared
    assert "127.0.0.1:1" in results.rankings[0].not_ranked["gone"]
    assert {place.way for place in results.rankings[0].places} == {"workers", "far", "job"}


def test_what_is_slower_by_construction_is_ranked_so(compared: tuple[int, Results]) -> None:
    _, results = compared
    workers, far = (results.cell(way, 900) for way in ("workers", "far"))
    assert workers is not None
    assert far is not None
    assert far.figures["work_s"].median >= ADDED_MS / 1000
    places = {place.way: place for place in results.rankings[0].places}
    best = min(place.value for place in places.values())
    assert places["far"].ratio == pytest.approx(far.figures["elapsed_s"].median / best)


def test_what_is_measured(compared: tuple[int, Results]) -> None:
    _, results = compared
    for run in results.runs:
        if run.way == "gone":
            continue
        assert (run.rows_read, run.rows_written, run.rows_dead_lettered) == (900, 897, 3)
        assert run.elapsed_s == pytest.approx(run.start_s + run.work_s + run.end_s, abs=0.01)
        assert run.pipeline_cpu_s > 0
        assert run.pipeline_peak_mb > 50
    (far,) = (run for run in results.runs if run.way == "far" and run.round)
    assert far.requests == 1
    assert far.bytes_sent is not None
    assert far.bytes_sent > 4 * 897
    assert far.server_cpu_s is not None
    assert far.server_peak_mb is not None
    (job,) = (run for run in results.runs if run.way == "job" and run.round)
    assert set(job.steps_s) == {"prepare", "submit", "wait", "join"}
    assert results.manifest.machine.cores >= 1
    assert len(results.manifest.model_hash) == 64


def test_failed_rows_agree_too(compared: tuple[int, Results]) -> None:
    _, results = compared
    assert [found.failed_in_both for found in results.parity if found.way == "job"] == [1]


def test_stages_of_batch_runs_are_measured(compared: tuple[int, Results]) -> None:
    _, results = compared
    for run in results.runs:
        # What a batch prediction job does between its steps is the service's.
        assert set(run.latency_ms) == (set() if run.way == "job" else {"read", "model", "write"})
    far, workers = (results.cell(way, 900) for way in ("far", "workers"))
    assert far is not None
    assert workers is not None
    assert far.figures["latency.model.p50"].median > max(ADDED_MS, workers.figures["latency.model.p50"].median)


def test_the_same_command_goes_on(
    compared: tuple[int, Results], batch: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, before = compared
    code = compare.main(["--config", batch, "--set", "rounds=2", "--json"])
    out, err = capsys.readouterr()
    after = Results.model_validate_json(out)
    assert code == 3
    assert f"going on: {len(before.runs)} earlier runs are used, the last of {before.runs[-1].begun[:10]} at " in err
    assert [run.begun for run in after.runs[: len(before.runs)]] == [run.begun for run in before.runs]
    more = after.runs[len(before.runs) :]
    # Warming up goes on where two runs were not alike.
    assert sorted(run.way for run in more if run.round) == ["far", "job", "workers", "wrong"]
    assert {run.way for run in more if not run.round} <= {"far", "job", "workers", "wrong"}
    cell = after.cell("workers", 900)
    assert cell is not None
    assert cell.figures["elapsed_s"].rounds == 2
    assert not (folder / "results" / "ways" / "work").exists()


@needs_streams
def test_streams(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ways = {
        "batches": {"model": {"type": "saved_model"}},
        "single": {"model": {"type": "saved_model"}, "batching": {"max_rows": 1}},
    }
    config = comparison(
        folder,
        "rates",
        config=str(folder / "stream.json"),
        ways=ways,
        rates=[200],
        rounds=1,
        seconds=1,
        parity_rows=300,
    )
    code = compare.main(["--config", config, "--json"])
    results = Results.model_validate_json(capsys.readouterr().out)
    assert code == 0
    assert [found.rows for found in results.parity] == [300, 300]
    for run in results.runs:
        assert set(run.latency_ms) == {"lag", "wait", "model", "total"}
        assert set(run.latency_ms["total"]) == {"p50", "p95", "p99", "max"}
    assert [run.rows_read for run in results.runs if run.round] == [200, 200]
    assert results.rankings[0].figure == "latency.total.p99"
    batches, single = (results.cell(way, 200) for way in ("batches", "single"))
    assert batches is not None
    assert single is not None
    # A batch waits for others; a single message does not.
    assert batches.figures["latency.wait.p50"].median > single.figures["latency.wait.p50"].median


def test_ctrl_c_ends_the_servers_and_keeps_what_was_done(folder: Path, batch: str) -> None:
    process = start("compare", "--config", batch, "--output", str(folder / "stopped"))
    journal = folder / "stopped" / "ways" / "runs.jsonl"
    wait_until(lambda: journal.exists() and '"parity"' in journal.read_text(), "a way was run")
    children = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "the same command goes on" in err
    assert "Traceback" not in err
    assert psutil.wait_procs(children, timeout=60)[1] == []


def test_ctrl_c_while_a_recommendation_starts_a_server(folder: Path, tmp_path: Path) -> None:
    """One line, and nothing is left running; SIGTERM does the same."""
    endpoint = {"model": {"type": "endpoint", "protocol": "tf_serving_grpc"}}
    ways = {"server": endpoint, "workers": {"model": {"type": "saved_model"}}}
    config = comparison(folder, "served", config=str(folder / "run.json"), ways=ways, sizes=[900])
    for sent in (signal.SIGINT, signal.SIGTERM):
        process = processes.start(
            [sys.executable, "-m", "pipelines.recommend", "--config", config],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        children: list[psutil.Process] = []

        def has_server(of: int = process.pid, seen: list[psutil.Process] = children) -> bool:
            seen[:] = psutil.Process(of).children(recursive=True)
            return any("model.serve" in each.cmdline() for each in seen)

        wait_until(has_server, "a server starts")
        process.send_signal(sent)
        out, err = process.communicate(timeout=120)
        assert (process.returncode, out) == (130, "")
        assert err.splitlines()[-1].startswith("stopped: what was measured is kept; the same command goes on")
        assert "Traceback" not in err
        assert psutil.wait_procs(children, timeout=60)[1] == []


def test_interrupted_as_it_starts_it_says_so(folder: Path, batch: str) -> None:
    program = (
        "import importlib.abc, os, signal, sys\n"
        "class Finder(importlib.abc.MetaPathFinder):\n"
        "    def find_spec(self, name, path, target=None):\n"
        "        if name == 'pipelines.comparison.session': os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.meta_path.insert(0, Finder())\n"
        "from pipelines import compare\n"
        f"sys.exit(compare.main(['--config', {batch!r}]))\n"
    )
    ended = processes.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert (ended.returncode, ended.stdout, ended.stderr.split()) == (
        130,
        "",
        ["stopped", "before", "anything", "was", "measured"],
    )


def test_a_killed_command_leaves_no_process_and_holds_its_folder_no_longer(folder: Path, batch: str) -> None:
    process = start("compare", "--config", batch, "--output", str(folder / "killed"))
    place = folder / "killed" / "ways"
    wait_until(lambda: list(place.glob("work/logs/server-*.log")) != [], "a server was started")
    second = start("compare", "--config", batch, "--output", str(folder / "killed"))
    _, err = second.communicate(timeout=120)
    errors = [line for line in err.splitlines() if line.startswith("error: ")]
    assert second.returncode == 2
    assert len(errors) == 1
    assert "is in use by run 'ways' (" in errors[0]
    wait_until(lambda: len(psutil.Process(process.pid).children()) >= 1, "a server runs")
    children = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.communicate(timeout=120)
    assert psutil.wait_procs(children, timeout=60)[1] == []
    with ResultsFolder(place, "ways"):
        pass


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--prices", "absent.json"], "--prices absent.json: there is no such file"),
        (["--output", "{folder}/rows.csv/results"], "cannot be made or written to"),
        (["--set", "sizes=[1000000000]"], "compare smaller sizes"),
    ],
)
def test_what_would_fail_at_the_end_is_told_before_anything_is_measured(
    folder: Path,
    batch: str,
    arguments: list[str],
    said: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def measures(self: ComparisonSession) -> None:
        raise AssertionError("it measures")

    monkeypatch.setattr(ComparisonSession, "run", measures)
    monkeypatch.setattr("pipelines.comparison.folder.shutil.disk_usage", lambda path: Usage(0, 0, 10**8))
    output = ["--output", str(folder / "refused")]
    assert compare.main(["--config", batch, *output, *(each.format(folder=folder) for each in arguments)]) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert said in errors[0]
    assert not (folder / "refused").exists()


def test_another_model_does_not_meet_the_inputs_of_the_earlier_command(folder: Path) -> None:
    config = comparison(folder, "anew", config=str(folder / "run.json"), sizes=[10])
    told: list[str] = []

    def session(rows: int) -> ComparisonSession:
        return ComparisonSession(load_comparison(config, [f"parity_rows={rows}"]), config, told.append)

    def interrupted() -> None:
        with session(5) as first:
            first.trials.measured(first.ways[0], 10, None)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert (folder / "results" / "anew" / "work" / "inputs" / "rows-10").exists()
    with session(6) as other:
        assert not (other.folder / "work" / "inputs" / "rows-10").exists()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"ways": {"one": {"model": {}}}}, "one way cannot be compared"),
        ({"sizes": [5, 5]}, "the same number is there twice"),
        ({"sizes": []}, "sizes"),
        ({"wayz": {}}, "wayz: unknown key; did you mean 'ways'?"),
        ({"ways": {"a": {"model": {}, "batch": {}}, "b": {"model": {}}}}, "ways.a.batch: unknown key; did you mean"),
        (
            {"ways": {"a": {"model": {}, "source": {}}, "b": {"model": {}}}},
            "ways.a.source: a way changes model and batching alone",
        ),
        (
            {"ways": {"a": {"model": {}, "server": {"latency": 1}}, "b": {"model": {}}}},
            "ways.a.server.latency: unknown key; did you mean 'latency_ms'?",
        ),
        (
            {"ways": {"a": {"model": {}}, "b": {"model": {"type": "lambda_fn"}}}},
            "ways.b.model.type: 'lambda_fn' is not one of saved_model, endpoint, batch_job",
        ),
        (
            {"ways": {"a": {"model": {}}, "b": {"model": {"type": "batch_job", "servise": "vertex"}}}},
            "ways.b.model.servise: unknown key; did you mean 'service'?",
        ),
        (
            {"ways": {"a": {"model": {}}, "b": {"model": {"type": "endpoint", "protocol": "vertex", "body": "json"}}}},
            "ways.b.model: body: vertex takes rows or raw",
        ),
        ({"ways": {"a": {"model": {}}, "b": {"model": {}, "batching": {"max_row": 1}}}}, "ways.b.batching.max_row"),
        ({"model": {"path": "elsewhere"}}, "model: it belongs in the run's config"),
        ({"rates": [5]}, "rates: for streams alone"),
        ({"seconds": 5}, "seconds: for streams alone"),
        ({"folder": "gs://bucket/x"}, "is no local folder"),
    ],
)
def test_mistakes_are_named(
    folder: Path, capsys: pytest.CaptureFixture[str], content: dict[str, Any], said: str
) -> None:
    config = comparison(folder, "mistakes", **{"config": str(folder / "run.json"), **content})
    assert compare.main(["--config", config]) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert said in errors[0]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"sizes": [5]}, "sizes: for batch runs alone, and the source of"),
        ({"ways": {"a": {"model": {}}, "b": {"model": {"type": "batch_job"}}}}, "ways.b.model.type: batch_job is for"),
    ],
)
def test_what_streams_do_not_take_is_named(
    folder: Path, capsys: pytest.CaptureFixture[str], content: dict[str, Any], said: str
) -> None:
    config = comparison(folder, "mistakes", **{"config": str(folder / "stream.json"), **content})
    assert compare.main(["--config", config]) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert said in errors[0]


def test_a_mistake_leaves_what_was_measured(folder: Path) -> None:
    kept = folder / "results" / "mistakes" / "runs.jsonl"
    kept.parent.mkdir(parents=True, exist_ok=True)
    kept.write_text("kept")
    ways = {"a": {"model": {}}, "b": {"model": {"type": "lambda_fn"}}}
    assert compare.main(["--config", comparison(folder, "mistakes", config=str(folder / "run.json"), ways=ways)]) == 2
    assert kept.read_text() == "kept"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"name": "x", "model": {}, "output": {}, "batching": {}}, "a run's config has 'source'"),
        ({"name": "x", "soruce": {}, "model": {}, "output": {}}, "is 'soruce' meant for it?"),
        ({"currency": "USD", "regions": {}, "machines": {}}, "neither a comparison nor a run's config"),
    ],
)
def test_a_file_of_another_kind_is_named_in_one_line(
    folder: Path, capsys: pytest.CaptureFixture[str], content: dict[str, Any], said: str
) -> None:
    path = folder / "another.json"
    path.write_text(json.dumps(content))
    assert compare.main(["--config", str(path)]) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert said in errors[0]


def test_a_comparison_of_a_comparison_is_named_in_one_line(
    folder: Path, batch: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert compare.main(["--config", comparison(folder, "of-another", config=batch)]) == 2
    assert "is itself a comparison; name a run's config" in capsys.readouterr().err


def test_a_way_that_is_left_alone_is_not_measured(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ways = {
        "workers": {"model": {"type": "saved_model"}},
        "absent": {"model": {"type": "saved_model", "path": str(folder / "absent")}},
    }
    config = comparison(folder, "alone", config=str(folder / "run.json"), ways=ways, sizes=[900], minutes=5)
    code = compare.main(["--config", config, "--json"])
    out, err = capsys.readouterr()
    results = Results.model_validate_json(out)
    assert code == 1
    assert "nothing more is measured: fewer than two ways" in err
    assert results.runs == ()
    assert "fewer than two ways are left" in results.rankings[0].not_ranked["workers"]
    assert "no SavedModel at" in results.rankings[0].not_ranked["absent"]


def test_a_run_that_cannot_be_planned_is_a_wrong_config(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = comparison(folder, "absent", config=str(folder / "absent-run.json"))
    assert compare.main(["--config", config]) == 2
    assert "absent-run.json: no such file" in capsys.readouterr().err


def test_secrets_of_ways_are_in_no_command_line(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODEL_TOKEN", "s3cret")
    model = {"type": "endpoint", "protocol": "tf_serving_rest", "url": "http://127.0.0.1:9",
             "headers": {"Authorization": "Bearer ${MODEL_TOKEN}"}}  # fmt: skip
    path = comparison(
        folder, "secret", config=str(folder / "run.json"), ways={"a": {"model": {}}, "b": {"model": model}}
    )
    with ComparisonSession(load_comparison(path), path, lambda line: None) as session:
        way = session.ways[1]
        words = session.trials.measured(way, 10, None).command.words()
    assert "s3cret" not in json.dumps(words)
    assert "${MODEL_TOKEN}" in json.dumps(words)


def test_a_usual_way_that_does_not_suit_the_run_is_no_mistake_of_the_config(folder: Path) -> None:
    from pipelines.comparison.session import ComparisonSession
    from pipelines.comparison.ways import problems_of
    from pipelines.config.load import load, load_comparison
    from pipelines.planning.planner import make_plan

    run = json.loads((folder / "run.json").read_text())
    save_as_predict(folder)
    (folder / "predict.json").write_text(json.dumps(run | {"model": {"path": str(folder / "predict")}}))
    path = comparison(folder, "usual", config=str(folder / "predict.json"))
    with ComparisonSession(load_comparison(path), path, lambda line: None) as session:
        plan = make_plan(load(str(folder / "predict.json")))
        problems = problems_of(session.ways, str(folder / "predict.json"), plan)
    assert [problem.split(":")[0] for problem in problems] == ["ways.batch job.model"]


def save_as_predict(folder: Path) -> None:
    """Saves a model whose one signature is not the one that services call by default."""
    import tensorflow as tf

    class Doubles(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="x")])
        def __call__(self, x: Any) -> Any:
            return {"twice": 2 * x}

    model = Doubles()
    tf.saved_model.save(model, str(folder / "predict"), signatures={"predict": model.__call__})


def test_a_variable_of_a_way_that_is_not_set_is_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = {"type": "endpoint", "protocol": "tf_serving_rest", "url": "${NO_SUCH_SERVER}"}
    ways = {"a": {"model": {}}, "b": {"model": model}}
    assert compare.main(["--config", comparison(folder, "unset", config=str(folder / "run.json"), ways=ways)]) == 2
    assert "ways.b.model.url: environment variable NO_SUCH_SERVER is not set" in capsys.readouterr().err
