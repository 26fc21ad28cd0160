"""The steps of a job one by one, its end before its time, and what is said when something is wrong."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.support.commands import Command, start
from tests.support.job_server import JobServer, config_of, job_server
from tests.support.ledger import births, books_of, shards, write_rows
from tests.support.waiting import wait_until


@pytest.fixture
def config(tmp_path: Path, server: JobServer) -> str:
    file = write_rows(tmp_path / "in.csv", "csv", births(300, 31))
    return config_of(tmp_path, file, server.model(tmp_path))


def test_one_step_after_the_other(command: Command, tmp_path: Path, server: JobServer, config: str) -> None:
    """Each is done once, however often it is run; each says what it is about."""
    for _ in range(2):
        found = command("batch", "--config", config, "--step", "prepare", "--json").summary
        assert (found["step"], found["rows_read"], found["instances"]) == ("prepare", 300, 300)
        assert server.jobs() == []
    folder = found["batch_job"]["folder"]
    assert len(list(Path(folder, "instances").iterdir())) == 1
    resources = set()
    for step in ("submit", "submit", "wait", "wait"):
        found = command("batch", "--config", config, "--step", step, "--json").summary
        assert found["step"] == step
        resources.add(found["batch_job"]["resource"])
    assert [job["name"] for job in server.jobs()] == list(resources)
    for _ in range(2):
        found = command("batch", "--config", config, "--step", "join", "--json").summary
        assert (found["rows_read"], found["rows_written"], found["ok"]) == (300, 300, True)
    assert len(books_of(tmp_path).output) == 300
    assert not list(Path(folder).glob("sorted-*"))


@pytest.mark.parametrize(("step", "said"), [("submit", "nothing is prepared"), ("wait", "nothing is prepared")])
def test_a_step_before_its_turn(command: Command, config: str, step: str, said: str) -> None:
    result = command("batch", "--config", config, "--step", step)
    assert result.code == 2, result
    assert said in result.errors[0]


def test_wait_and_join_before_a_job_is_submitted(command: Command, config: str) -> None:
    assert command("batch", "--config", config, "--step", "prepare").code == 0
    for step in ("wait", "join"):
        result = command("batch", "--config", config, "--step", step)
        assert result.code == 2, result
        assert f"--step {step}: no job was submitted" in result.errors[0]


def test_detach_and_come_back(command: Command, tmp_path: Path, config: str, server: JobServer) -> None:
    result = command("batch", "--config", config, "--detach")
    assert result.code == 0, result
    assert shards(tmp_path / "out" / "p") == []
    [job] = server.jobs()
    assert job["name"] in result.out
    assert command("batch", "--config", config).code == 0
    assert len(server.jobs()) == 1
    assert len(books_of(tmp_path).output) == 300


def test_cancel_then_submit_again(command: Command, tmp_path: Path) -> None:
    file = write_rows(tmp_path / "in.csv", "csv", births(300, 32))
    with job_server(tmp_path, run_s=600) as server:
        config = config_of(tmp_path, file, server.model(tmp_path))
        nothing = command("batch", "--config", config, "--cancel")
        assert nothing.code == 2
        assert "no job of this config over this input was submitted" in nothing.errors[0]
        assert command("batch", "--config", config, "--detach").code == 0
        early = command("batch", "--config", config, "--step", "join")
        assert early.code == 1
        assert "--step wait waits for its end" in early.errors[0]
        late = command("batch", "--config", config, "--set=model.deadline_s=0.3")
        assert late.code == 1
        assert "did not end within 0.3 s (model.deadline_s); it goes on" in late.errors[0]
        assert command("batch", "--config", config, "--cancel").code == 0
        wait_until(lambda: server.jobs()[0]["state"] == "JOB_STATE_CANCELLED", "the job is cancelled")
        ended = command("batch", "--config", config)
        assert ended.code == 1
        assert "ended as JOB_STATE_CANCELLED; mend what is wrong, then run" in ended.errors[0]
        assert len(server.jobs()) == 1
        assert command("batch", "--config", config, "--resubmit", "--detach").code == 0
        assert [job["displayName"][-2:] for job in server.jobs()] == ["_2", "_1"]


def test_a_job_that_fails_says_why(command: Command, tmp_path: Path) -> None:
    file = write_rows(tmp_path / "in.csv", "csv", births(30, 33))
    message = "Service agent service-1@gcp-sa-aiplatform.iam.gserviceaccount.com does not exist."
    with job_server(tmp_path, outcome="failed", message=message) as server:
        config = config_of(tmp_path, file, server.model(tmp_path))
        for _ in range(2):
            result = command("batch", "--config", config)
            assert result.code == 1, result
            [line] = result.errors
            assert f"ended as JOB_STATE_FAILED: {message}; mend what is wrong" in line
        assert len(server.jobs()) == 1


def changed(model: dict[str, Any], **settings: Any) -> dict[str, Any]:
    return {**model, **settings}


WRONG: dict[str, tuple[dict[str, Any], dict[str, Any], int, str]] = {
    "caller refused": ({"denied": True}, {}, 2, "Permission 'aiplatform.batchPredictionJobs.create' denied"),
    "no such model": ({}, {"resource": "projects/p/locations/us-central1/models/nobody"}, 2, "there is no model"),
    "not a model": ({}, {"resource": "models/nobody"}, 2, "is not projects/P/locations/L/models/M"),
    "quota": ({"quota": 0}, {}, 1, "run the same command again later, or ask for more quota"),
    "other folder": ({}, {"folder": "/proc/version/jobs"}, 2, "model.folder: cannot write to /proc/version/jobs"),
    "nobody there": ({}, {"url": "http://127.0.0.1:9"}, 2, "start the server (make serve), or check model.url"),
    "no address": ({}, {"url": "ftp://x"}, 2, "model.url: it is not an address"),
    "key is an input": ({}, {"key_field": "plurality"}, 2, "model.key_field: the model has an input 'plurality'"),
    "local folder": ({}, {"url": None}, 2, "give a folder on gs://"),
    "too dear": ({}, {"max_cost": 0.001}, 2, "raise max_cost, take fewer rows, or correct rows_per_node_hour"),
    "unknown price": ({}, {"max_cost": 1, "machine_type": "x9-huge-1"}, 2, "has no vertex_batch_x9_huge_1_hour"),
}


@pytest.mark.parametrize("what", WRONG)
def test_mistakes_are_one_line_with_what_to_do(
    command: Command, tmp_path: Path, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("model.cloud.rest._MAX_PAUSE", 0.01)
    options, settings, code, said = WRONG[what]
    file = write_rows(tmp_path / "in.csv", "csv", births(30, 34))
    with job_server(tmp_path, **options) as server:
        model = {name: value for name, value in {**server.model(tmp_path), **settings}.items() if value is not None}
        config = config_of(tmp_path, file, model)
        result = command("batch", "--config", config)
        assert result.code == code, result
        [line] = result.errors
        assert said in line
        if what != "caller refused":
            assert server.jobs() == []
    assert shards(tmp_path / "out" / "p") == []


def test_options_of_jobs_are_for_jobs(command: Command) -> None:
    result = command("batch", "--step", "submit")
    assert result.code == 2
    assert result.errors == ["error: --step: is for batch prediction jobs; model.type is saved_model"]


@pytest.mark.parametrize("arguments", [[], ["--step=submit"], ["--step=wait"], ["--detach"]])
def test_a_template_is_one_step(command: Command, config: str, server: JobServer, arguments: list[str]) -> None:
    template = ["--runner=DataflowRunner", "--template_location=gs://bucket/t"]
    result = command("batch", "--config", config, *template, *arguments)
    assert result.code == 2
    assert "give --step prepare or --step join" in result.errors[0]
    assert server.jobs() == []


def test_streams_refuse_jobs(command: Command, config: str) -> None:
    model = json.loads(Path(config).read_text())["model"]
    stream = command("stream", f"--set=model={json.dumps(model)}", "--duration", "1")
    assert stream.code == 2
    assert any("model.type: batch_job is for python -m pipelines.batch" in line for line in stream.errors)


def test_replays_and_trials_refuse_jobs(command: Command, config: str) -> None:
    replay = command("replay", "--config", config)
    assert replay.code == 2
    assert "replay does not run a batch prediction job" in replay.errors[0]
    trial = command("check", "--config", config, "--model")
    assert trial.code == 2


def test_check_says_what_there_is(command: Command, config: str) -> None:
    first = command("check", "--config", config, "--json")
    assert first.code == 0, first
    assert first.summary["batch_job"]["prepared"] is False
    # The lines of the file, with its header.
    assert first.summary["batch_job"]["estimated_rows"] in (300, 301)
    assert first.summary["batch_job"]["estimated_cost"] > 0
    assert "for about" in first.err
    dear = command("check", "--config", config, "--set", "model.max_cost=0.000001")
    assert dear.code == 2
    assert "model.max_cost: the job is estimated to cost" in dear.errors[0]
    assert command("batch", "--config", config, "--step", "prepare").code == 0
    second = command("check", "--config", config, "--json").summary
    assert second["batch_job"]["estimated_cost"] > 0
    assert command("batch", "--config", config, "--detach").code == 0
    assert "resource" in command("check", "--config", config, "--json").summary["batch_job"]


# Processes that are killed -------------------------------------------------------------------------------------------


KILLED = {
    "while rows are prepared": "unfinished/*.jsonl",
    "when all is prepared": "prepared.json",
    "when the job is to be submitted": "job.json",
    "while the job runs": "job.json",
    "while results are joined": "sorted-*/*.results",
}


@pytest.mark.parametrize("when", KILLED)
def test_a_killed_command_goes_on_and_pays_once(command: Command, tmp_path: Path, when: str) -> None:
    rows = births(20_000, 35)
    file = write_rows(tmp_path / "in.csv", "csv", rows)
    with job_server(tmp_path, run_s=4.0 if when == "while the job runs" else 0.0) as server:
        config = config_of(tmp_path, file, server.model(tmp_path))
        process = start("batch", "--config", config)

        def reached() -> bool:
            if process.poll() is not None:
                return True
            if when == "while the job runs":
                return bool(server.jobs())
            return any((tmp_path / "jobs").glob(f"*/{KILLED[when]}"))

        wait_until(reached, when, every_s=0.001)
        process.kill()
        process.communicate()
        result = command("batch", "--config", config, "--json")
        assert result.code == 0, result
        assert (result.summary["rows_read"], result.summary["rows_written"]) == (20_000, 20_000)
        assert len(server.jobs()) == 1
    assert len(books_of(tmp_path).output) == 20_000


def test_two_at_once_pay_once(command: Command, tmp_path: Path) -> None:
    file = write_rows(tmp_path / "in.csv", "csv", births(500, 36))
    with job_server(tmp_path, run_s=0.5) as server:
        config = config_of(tmp_path, file, server.model(tmp_path))
        both = [start("batch", "--config", config), start("batch", "--config", config)]
        said = [process.communicate() for process in both]
        codes = sorted(process.returncode for process in both)
        # Either the second found the first at work, or came when all was done.
        assert codes in ([0, 0], [0, 2]), said
        assert len(server.jobs()) == 1
        if codes == [0, 2]:
            assert any("is at work on the same job" in err for _, err in said)
        assert command("batch", "--config", config).code == 0
        assert len(server.jobs()) == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_waiting_leaves_the_job(command: Command, tmp_path: Path, number: signal.Signals) -> None:
    file = write_rows(tmp_path / "in.csv", "csv", births(50, 37))
    with job_server(tmp_path, run_s=600) as server:
        config = config_of(tmp_path, file, server.model(tmp_path))
        assert command("batch", "--config", config, "--detach").code == 0
        process = start("batch", "--config", config, "--step", "wait")
        assert process.stderr is not None
        lines = []
        while not any("step wait" in line for line in lines):
            lines.append(process.stderr.readline())
            assert lines[-1], lines
        process.send_signal(number)
        _, err = process.communicate()
        assert process.returncode == 128 + number
        assert "goes on: run the same command again to wait for it" in err
        assert "--cancel" in err
        [job] = server.jobs()
        assert job["state"] == "JOB_STATE_RUNNING"


@pytest.mark.parametrize("when", ["loading Beam", "step prepare", "instances, ", "is submitted", "step join"])
def test_a_signal_at_any_time_says_how_to_go_on(command: Command, tmp_path: Path, when: str) -> None:
    file = write_rows(tmp_path / "in.csv", "csv", births(500, 40))
    with job_server(tmp_path) as server:
        config = config_of(tmp_path, file, server.model(tmp_path))
        process = start("batch", "--config", config)
        assert process.stderr is not None
        said = ""
        while when not in said:
            line = process.stderr.readline()
            assert line, said
            said += line
        process.send_signal(signal.SIGINT)
        _, rest = process.communicate()
        assert process.returncode == 130, rest
        assert "Traceback" not in said + rest
        [stopped] = [line for line in rest.splitlines() if line.startswith("stopped: ")]
        assert "the same command" in stopped or "nothing was published" in stopped
        assert not [path for place in ("jobs", "out") for path in (tmp_path / place).rglob(".*") if path.is_file()]
        result = command("batch", "--config", config, "--json")
        assert result.code == 0, result
        assert result.summary["rows_written"] == 500
        assert len(server.jobs()) == 1


@pytest.mark.parametrize(
    ("place", "parts", "said"),
    [
        ("EUROPE-WEST1", (), "is in EUROPE-WEST1, and the model is in us-central1; give a bucket in us-central1"),
        ("US", (), "jobs of Vertex AI take buckets of one region only; give one in us-central1"),
        ("US-CENTRAL1", (), ""),
        ("", (), ""),
    ],
)
def test_a_bucket_must_be_where_the_model_is(
    monkeypatch: pytest.MonkeyPatch, place: str, parts: tuple[str, ...], said: str
) -> None:
    from inference.job.vertex import VertexJobs
    from pipelines.config.batch_job import BatchJobConfig
    from pipelines.connectors.bigquery import locations
    from pipelines.planning import batch_job
    from tests.support.ledger import MODEL

    monkeypatch.setattr(locations, "of_bucket", lambda bucket, where: (place, parts))
    monkeypatch.setattr(VertexJobs, "look", lambda self: None)
    config = BatchJobConfig(
        type="batch_job",
        resource="projects/p/locations/us-central1/models/1",
        folder="gs://my-bucket/jobs",
        signature_from=MODEL,
    )
    problems: list[str] = []
    found = batch_job.find(config, problems)
    assert (found is None) is bool(said)
    assert all(said in problem for problem in problems)
    assert len(problems) == bool(said)


def test_a_job_that_the_service_has_forgotten(command: Command, tmp_path: Path, config: str, server: JobServer) -> None:
    assert command("batch", "--config", config, "--detach").code == 0
    with job_server(tmp_path) as other:
        there = f"--set=model.url={other.url}"
        for arguments in (["--step", "wait"], [], ["--step", "join"], ["--cancel"]):
            result = command("batch", "--config", config, there, *arguments)
            assert result.code == 1, (arguments, result)
            assert "does not know the job" in result.errors[0]
            assert "with --resubmit" in result.errors[0]
        again = command("batch", "--config", config, there, "--resubmit", "--json")
        assert again.code == 0, again
        assert again.summary["rows_written"] == 300
        assert len(other.jobs()) == 1


def test_resubmit_is_for_jobs_that_have_ended(command: Command, tmp_path: Path) -> None:
    file = write_rows(tmp_path / "in.csv", "csv", births(30, 38))
    with job_server(tmp_path, run_s=600) as server:
        config = config_of(tmp_path, file, server.model(tmp_path))
        assert command("batch", "--config", config, "--detach").code == 0
        result = command("batch", "--config", config, "--resubmit", "--detach")
        assert result.code == 2, result
        assert "wait for its end, or --cancel it first" in result.errors[0]
        assert len(server.jobs()) == 1


@pytest.mark.parametrize(
    ("gone", "said"),
    [
        ("rows/*", "is gone, and its rows cannot be joined without it"),
        ("rows/*.rows+", "is not as it was written, and its rows"),
        ("rows/*.rows~", "is not as it was written (checksum of "),
        ("results-1/*/prediction.results*", "there are no files of results"),
        ("results-1/*/prediction.results-00000-of-00002", "prediction.results-00000-of-00002 is gone, of the job "),
    ],
)
def test_files_of_a_job_that_are_gone(
    command: Command, tmp_path: Path, config: str, server: JobServer, gone: str, said: str
) -> None:
    """Nothing is published over what an earlier run has published."""
    assert command("batch", "--config", config).code == 0
    before = [path.read_bytes() for path in shards(tmp_path / "out" / "p")]
    found = list((tmp_path / "jobs").glob(f"*/{gone.rstrip('+~')}"))
    assert found
    for path in found:
        if gone.endswith("+"):
            path.write_bytes(path.read_bytes()[:-50])
        elif gone.endswith("~"):
            content = bytearray(path.read_bytes())
            content[len(content) // 2] ^= 1
            path.write_bytes(content)
        else:
            path.unlink()
    result = command("batch", "--config", config)
    assert result.code == 1, result
    [line] = result.errors
    assert said in line
    assert "run the same command" in line
    assert "Traceback" not in result.err
    assert [path.read_bytes() for path in shards(tmp_path / "out" / "p")] == before


def test_a_file_of_results_that_is_cut_short(command: Command, tmp_path: Path, config: str, server: JobServer) -> None:
    """Rows whose results it had are dead letters that say what is to be done; then all are there."""
    arguments = ["--config", config, "--set=dead_letters.max_fraction=0.01", "--json"]
    assert command("batch", *arguments).code == 0
    whole = {path: path.read_bytes() for path in (tmp_path / "jobs").glob("*/results-1/*/prediction.results*")}
    for path, content in whole.items():
        path.write_bytes(content[: len(content) // 2])
    result = command("batch", *arguments)
    assert result.code == 3, result
    letters = books_of(tmp_path).dead_letters
    assert len(letters) == result.summary["rows_dead_lettered"] > 100
    assert {letter["error"] for letter in letters} == {"NoResultError"}
    assert all("says that it predicted all 300: look whether" in letter["message"] for letter in letters)
    for path, content in whole.items():
        path.write_bytes(content)
    assert command("batch", *arguments).summary["rows_written"] == 300


@pytest.mark.parametrize("damage", ["gone", "cut short", "changed"])
def test_dead_letters_that_are_not_as_they_were(
    command: Command, tmp_path: Path, server: JobServer, damage: str
) -> None:
    """Those of the preparation; nothing is published over what an earlier run has published."""
    rows = births(300, 39)
    rows[7]["mother_age"] = None
    file = write_rows(tmp_path / "in.csv", "csv", rows)
    config = config_of(tmp_path, file, server.model(tmp_path))
    assert command("batch", "--config", config).code == 0
    before = shards(tmp_path / "out" / "p")
    [kept] = (tmp_path / "jobs").glob("*/dead_letters/*")
    content = kept.read_bytes()
    if damage == "gone":
        kept.unlink()
    else:
        # Still a line of JSON, of another row.
        changed = content.replace(b'"r000007"', b'"r000008"')
        assert changed != content
        kept.write_bytes(changed if damage == "changed" else content[:-1])
    result = command("batch", "--config", config)
    assert result.code == 1, result
    [line] = result.errors
    assert "is gone, and" in line if damage == "gone" else "is not as it was written" in line
    assert ("(checksum)" in line) is (damage == "changed")
    assert "run the same command" in line
    assert shards(tmp_path / "out" / "p") == before
    kept.write_bytes(content)
    assert command("batch", "--config", config).code == 0


@pytest.mark.parametrize(("record", "jobs"), [("job.json", 1), ("prepared.json", 2)])
def test_a_record_that_is_damaged(
    command: Command, tmp_path: Path, config: str, server: JobServer, record: str, jobs: int
) -> None:
    """Who does what the line says gets all rows; a job is paid for again only where the line says so."""
    assert command("batch", "--config", config).code == 0
    [path] = (tmp_path / "jobs").glob(f"*/{record}")
    path.write_text('{"ru')
    result = command("batch", "--config", config)
    assert result.code == 2, result
    [line] = result.errors
    assert ("with a job of its own" in line) is (jobs == 2)
    removed = Path(line.partition("; remove ")[2].partition(" to begin")[0]) if jobs == 2 else path
    shutil.rmtree(removed) if removed.is_dir() else removed.unlink()
    again = command("batch", "--config", config, "--json")
    assert again.code == 0, again
    assert again.summary["rows_written"] == 300
    assert len(server.jobs()) == jobs


@pytest.mark.parametrize("options", [["--step", "wait", "--detach"], ["--cancel", "--resubmit"]])
def test_options_that_exclude_each_other(command: Command, config: str, options: list[str]) -> None:
    result = command("batch", "--config", config, *options)
    assert result.code == 2
    assert "exclude each other; give one" in result.errors[0]


def test_a_folder_that_was_removed_is_begun_anew(
    command: Command, tmp_path: Path, config: str, server: JobServer
) -> None:
    """The keys of new instances are others: the results of the first job are not theirs."""
    for count in (1, 2):
        result = command("batch", "--config", config, "--json")
        assert result.code == 0, result
        assert result.summary["rows_written"] == 300
        assert len(server.jobs()) == count
        shutil.rmtree(tmp_path / "jobs")
