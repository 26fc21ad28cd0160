"""The job services of the local server, as their clients see them: what they take, tell, refuse and write."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from model.serving.jobs import work
from model.serving.jobs.files import LocalFiles
from model.serving.jobs.records import DamagedRecordsError, record_pieces, records_in
from tests.support.job_server import VERTEX, JobServer, job_server
from tests.support.ledger import DEFAULTS, NUMBERS, TEXTS, births
from tests.support.waiting import wait_until

Json = dict[str, Any]
JOBS = f"{VERTEX}/batchPredictionJobs"


def call(server: JobServer, method: str, path: str, body: Json | None = None) -> Json:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"{server.url}/v1/{path}", data, method=method)
    with urllib.request.urlopen(request, timeout=20) as answer:
        return dict(json.load(answer))


def refused(server: JobServer, method: str, path: str, body: Json | None = None) -> tuple[int, str]:
    """The code and the message of an error."""
    with pytest.raises(urllib.error.HTTPError) as caught:
        call(server, method, path, body)
    error = json.loads(caught.value.read())["error"]
    assert error["code"] == caught.value.code
    return caught.value.code, error["message"]


def instances(path: Path, count: int = 300, *, keyed: bool = True) -> Path:
    """A file of instances, with keys or without."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        for number, row in enumerate(births(count, 71)):
            values = {name: DEFAULTS.get(name, "") if row[name] is None else row[name] for name in TEXTS}
            values |= {name: 40.0 if row[name] is None else float(row[name]) for name in NUMBERS}
            file.write(json.dumps({**({"id": f"k{number:04d}"} if keyed else {}), **values}) + "\n")
    return path


def order(folder: Path, **changes: Any) -> Json:
    return {
        "displayName": "a job",
        "labels": {"run": "r1"},
        "model": f"{VERTEX}/models/default",
        "inputConfig": {"instancesFormat": "jsonl", "gcsSource": {"uris": [f"{folder}/in/*.jsonl"]}},
        "instanceConfig": {"keyField": "id"},
        "outputConfig": {"predictionsFormat": "jsonl", "gcsDestination": {"outputUriPrefix": f"{folder}/results"}},
        **changes,
    }


def ended(server: JobServer, name: str) -> Json:
    return wait_until(
        lambda: next((found for found in [call(server, "GET", name)] if found["state"].split("_")[-1] in ENDS), None),
        "the job has ended",
    )


ENDS = ("SUCCEEDED", "FAILED", "CANCELLED")


def results(folder: Path, pattern: str = "prediction.results-*") -> list[Json]:
    files = sorted(Path(folder).glob(pattern))
    assert files, pattern
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


def test_a_job_of_vertex(tmp_path: Path) -> None:
    instances(tmp_path / "in" / "a.jsonl")
    with job_server(tmp_path, shards=3) as server:
        job = call(server, "POST", JOBS, order(tmp_path))
        assert job["name"].startswith(f"{JOBS}/")
        assert job["state"].startswith("JOB_STATE_")
        done = ended(server, job["name"])
        assert done["state"] == "JOB_STATE_SUCCEEDED"
        assert done["completionStats"] == {"successfulCount": "300", "failedCount": "0", "incompleteCount": "0"}
        assert done["resourcesConsumed"]["replicaHours"] > 0
        assert {"createTime", "startTime", "endTime"} <= set(done)
        for condition, count in [
            ('labels.run="r1"', 1),
            ("labels.run=r2", 0),
            ('displayName="a job" AND state="x"', 0),
        ]:
            found = call(server, "GET", f"{JOBS}?filter={urllib.request.quote(condition)}")
            assert len(found["batchPredictionJobs"]) == count, condition
        call(server, "DELETE", job["name"])
        assert refused(server, "GET", job["name"])[0] == 404
    found = results(Path(done["outputInfo"]["gcsOutputDirectory"]))
    assert sorted(line["key"] for line in found) == [f"k{number:04d}" for number in range(300)]
    assert all(set(line) == {"key", "prediction"} for line in found)


def test_a_job_of_ai_platform(tmp_path: Path) -> None:
    file = instances(tmp_path / "in" / "a.jsonl", keyed=False)
    body: Json = {
        "jobId": "births_1",
        "predictionInput": {
            "dataFormat": "JSON",
            "inputPaths": [str(file)],
            "outputPath": f"{tmp_path}/results/",
            "region": "us-central1",
            "modelName": "projects/p/models/default",
        },
    }
    with job_server(tmp_path) as server:
        call(server, "POST", "projects/p/jobs", body)
        assert refused(server, "POST", "projects/p/jobs", body)[0] == 409
        done = ended(server, "projects/p/jobs/births_1")
        told = done["predictionOutput"]
        assert (done["state"], told["predictionCount"], told["errorCount"]) == ("SUCCEEDED", "300", "0")
        assert refused(server, "POST", "projects/p/jobs", {**body, "jobId": "1-x"})[0] == 400
        assert refused(server, "GET", "projects/p/jobs/other")[0] == 404
    found = results(tmp_path / "results")
    assert len(found) == 300
    assert all(set(line) == {"predictions"} for line in found)


WRONG: dict[str, tuple[Json, int, str]] = {
    "no model": ({"model": f"{VERTEX}/models/nobody"}, 404, "does not exist"),
    "another project": ({"model": "projects/q/locations/us-central1/models/default"}, 400, "is not a model in"),
    "format": ({"inputConfig": {"instancesFormat": "csv", "gcsSource": {"uris": ["x"]}}}, 400, "jsonl, tf-record and"),
    "key of records": (
        {"inputConfig": {"instancesFormat": "tf-record", "gcsSource": {"uris": ["x"]}}},
        400,
        "keyField; Message",
    ),
    "no input": ({"inputConfig": {"instancesFormat": "jsonl", "gcsSource": {"uris": []}}}, 400, "gcsSource.uris"),
    "no instances": ({"manualBatchTuningParameters": {"batchSize": 0}}, 400, "not a positive number of instances"),
    "no number": ({"manualBatchTuningParameters": {"batchSize": "many"}}, 400, "manualBatchTuningParameters.batchSize"),
    "no output": ({"outputConfig": {}}, 400, "outputUriPrefix"),
    "fields": ({"instanceConfig": {"excludedFields": ["x"]}}, 400, "excludedFields"),
    "folder": ({"outputConfig": {"gcsDestination": {"outputUriPrefix": "/etc/x"}}}, 403, "--job-folder"),
    "folder above": ({"outputConfig": {"gcsDestination": {"outputUriPrefix": "@/../x"}}}, 403, "--job-folder"),
}


@pytest.mark.parametrize("what", WRONG)
def test_orders_that_are_wrong(tmp_path: Path, what: str) -> None:
    changes, code, said = WRONG[what]
    changes = json.loads(json.dumps(changes).replace("@", str(tmp_path)))
    with job_server(tmp_path) as server:
        found = refused(server, "POST", JOBS, order(tmp_path, **changes))
        assert found[0] == code
        assert said in found[1]
        assert server.jobs() == []


@pytest.mark.parametrize(("pattern", "said"), [("/etc/host*", "--job-folder"), ("@/nothing/*", "match no files")])
def test_inputs_that_cannot_be_read_fail_the_job(tmp_path: Path, pattern: str, said: str) -> None:
    source = {"instancesFormat": "jsonl", "gcsSource": {"uris": [pattern.replace("@", str(tmp_path))]}}
    with job_server(tmp_path) as server:
        done = ended(server, call(server, "POST", JOBS, order(tmp_path, inputConfig=source))["name"])
    assert done["state"] == "JOB_STATE_FAILED"
    assert said in done["error"]["message"]


def test_a_link_out_of_the_folder_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "x.jsonl").symlink_to("/etc/hosts")
    with job_server(tmp_path) as server:
        done = ended(server, call(server, "POST", JOBS, order(tmp_path))["name"])
    assert "match no files" in done["error"]["message"]


def test_lines_that_are_no_instances_are_refused_alone(tmp_path: Path) -> None:
    file = instances(tmp_path / "in" / "a.jsonl", 20)
    lines = file.read_text().splitlines()
    lines[3] = "{broken"
    lines[7] = json.dumps({**json.loads(lines[7]), "mother_age": "old"})
    lines[9] = json.dumps({"id": "k0009", "more": 1})
    lines[11] = "[1, 2]"
    file.write_text("\n".join(lines) + "\n")
    with job_server(tmp_path, errors="inline") as server:
        done = ended(server, call(server, "POST", JOBS, order(tmp_path))["name"])
    assert done["completionStats"]["failedCount"] == "4"
    found = results(Path(done["outputInfo"]["gcsOutputDirectory"]))
    assert sum("prediction" in line for line in found) == 16
    errors = [line for line in found if "error" in line]
    assert {line.get("key") for line in errors} == {None, "k0007", "k0009"}
    assert all(line["error"]["message"] for line in errors)


def test_half_of_a_surrogate_pair_is_refused_alone(tmp_path: Path) -> None:
    file = instances(tmp_path / "in" / "a.jsonl", 10)
    lines = file.read_text().splitlines()
    lines[4] = lines[4].replace('"True"', '"\\ud800"').replace('"False"', '"\\ud800"')
    file.write_text("\n".join(lines) + "\n")
    with job_server(tmp_path, errors="inline") as server:
        done = ended(server, call(server, "POST", JOBS, order(tmp_path))["name"])
    assert (done["state"], done["completionStats"]["failedCount"]) == ("JOB_STATE_SUCCEEDED", "1")


def test_part_of_the_input_is_not_tried(tmp_path: Path) -> None:
    instances(tmp_path / "in" / "a.jsonl", 200)
    with job_server(tmp_path, outcome="partial") as server:
        done = ended(server, call(server, "POST", JOBS, order(tmp_path))["name"])
    stats = {name: int(count) for name, count in done["completionStats"].items()}
    assert done["state"] == "JOB_STATE_PARTIALLY_SUCCEEDED"
    assert 20 < stats["incompleteCount"] < 120
    assert sum(stats.values()) == 200


@pytest.mark.parametrize("query", ["filter=nobody%3D1", "pageToken=-1", "pageSize=x"])
def test_questions_that_are_wrong(tmp_path: Path, query: str) -> None:
    with job_server(tmp_path) as server:
        assert refused(server, "GET", f"{JOBS}?{query}")[0] == 400


def test_two_jobs_at_once_have_folders_of_their_own(tmp_path: Path) -> None:
    instances(tmp_path / "in" / "a.jsonl", 20)
    with job_server(tmp_path) as server:
        names = [call(server, "POST", JOBS, order(tmp_path))["name"] for _ in range(3)]
        done = [ended(server, name) for name in names]
    assert {each["state"] for each in done} == {"JOB_STATE_SUCCEEDED"}
    assert len({each["outputInfo"]["gcsOutputDirectory"] for each in done}) == 3


def test_what_only_the_service_says_is_not_taken_from_callers(tmp_path: Path) -> None:
    instances(tmp_path / "in" / "a.jsonl", 20)
    with job_server(tmp_path, run_s=600) as server:
        body = order(tmp_path, outputInfo={"gcsOutputDirectory": "/x"}, error={"message": "mine"}, endTime="now")
        job = call(server, "POST", JOBS, body)
        assert not {"outputInfo", "error", "endTime"} & set(job)
        call(server, "POST", f"{job['name']}:cancel", {})


def test_cancel_ends_a_job(tmp_path: Path) -> None:
    instances(tmp_path / "in" / "a.jsonl")
    with job_server(tmp_path, run_s=600) as server:
        name = call(server, "POST", JOBS, order(tmp_path))["name"]
        call(server, "POST", f"{name}:cancel", {})
        assert ended(server, name)["state"] == "JOB_STATE_CANCELLED"
    assert not (tmp_path / "results").exists()


def test_states_in_their_order(tmp_path: Path) -> None:
    instances(tmp_path / "in" / "a.jsonl")
    with job_server(tmp_path, state_s=0.3, run_s=0.3) as server:
        name = call(server, "POST", JOBS, order(tmp_path))["name"]
        seen: list[str] = []

        def is_done() -> bool:
            state = str(call(server, "GET", name)["state"]).removeprefix("JOB_STATE_")
            seen.extend([state] if state not in seen else [])
            return state == "SUCCEEDED"

        wait_until(is_done, "the job is done")
    assert seen[-3:] == ["PENDING", "RUNNING", "SUCCEEDED"]


def test_the_same_rows_are_refused_each_time(tmp_path: Path) -> None:
    instances(tmp_path / "in" / "a.jsonl")
    keys = []
    with job_server(tmp_path, row_error_rate=0.1, file_names="predictions", errors="both", seed=4) as server:
        for number in range(2):
            destination = {"gcsDestination": {"outputUriPrefix": f"{tmp_path}/results-{number}"}}
            name = call(server, "POST", JOBS, order(tmp_path, outputConfig=destination))["name"]
            folder = Path(ended(server, name)["outputInfo"]["gcsOutputDirectory"])
            found = results(folder, "predictions_*.jsonl")
            keys.append(sorted(line["key"] for line in found if "error" in line))
            [message, count] = json.loads((folder / "errors_0001.jsonl").read_text())
            assert (message, count) == ("refused on purpose", len(keys[-1]))
    assert keys[0] == keys[1]
    assert 5 < len(keys[0]) < 80


RECORDS = [bytes([number]) * (number * 7_000) for number in range(100)]


def write_records(path: Path) -> bytes:
    """A TFRecord file, written by TensorFlow."""
    import tensorflow as tf

    path.parent.mkdir(parents=True, exist_ok=True)
    with tf.io.TFRecordWriter(str(path)) as writer:
        for record in RECORDS:
            writer.write(record)
    return path.read_bytes()


def found_in(folder: Path, file: Path) -> tuple[list[bytes], str]:
    """The records of a file by pieces, and what is wrong with it."""
    files, found = LocalFiles((str(folder.resolve()),)), []
    try:
        for piece in record_pieces(files, str(file)):
            found += records_in(files.read(piece.file, piece.start, piece.end))
    except DamagedRecordsError as error:
        return found, str(error)
    return found, ""


def test_records_of_a_file(tmp_path: Path) -> None:
    file = tmp_path / "a.tfrecord"
    write_records(file)
    assert found_in(tmp_path, file) == (RECORDS, "")
    file.write_bytes(b"")
    assert found_in(tmp_path, file) == ([], "")


def test_records_behind_a_damage_are_not_read(tmp_path: Path) -> None:
    file = tmp_path / "a.tfrecord"
    content = write_records(file)
    starts = [0]
    for record in RECORDS:
        starts.append(starts[-1] + len(record) + 16)
    for number, offset in ((0, 3), (40, 9), (60, 15), (99, 100_000)):
        broken = bytearray(content)
        broken[starts[number] + offset] ^= 4
        file.write_bytes(broken)
        found, problem = found_in(tmp_path, file)
        assert found == RECORDS[:number]
        assert "checksum" in problem
        assert f"(byte {starts[number]:,})" in problem
    file.write_bytes(content[:-5])
    found, problem = found_in(tmp_path, file)
    assert (found, "it ends within a record" in problem) == (RECORDS[:99], True)


@pytest.mark.parametrize(("given", "most"), [(None, 64), (50, 50), ("7", 7), (1000, 300)])
@pytest.mark.parametrize("service", ["vertex", "ai_platform"])
def test_calls_of_the_model_have_as_many_instances_as_were_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, service: str, given: int | str | None, most: int
) -> None:
    file = instances(tmp_path / "in" / "a.jsonl", 300, keyed=service == "vertex")
    calls: list[int] = []
    predicted = work._predicted

    def counted(servable: Any, shown: list[Any], limits: Any) -> list[Any]:
        calls.append(len(shown))
        return predicted(servable, shown, limits)

    monkeypatch.setattr(work, "_predicted", counted)
    with job_server(tmp_path) as server:
        if service == "vertex":
            asked = {} if given is None else {"manualBatchTuningParameters": {"batchSize": given}}
            done = ended(server, call(server, "POST", JOBS, order(tmp_path, **asked))["name"])
        else:
            wanted = {
                "dataFormat": "JSON",
                "inputPaths": [str(file)],
                "outputPath": f"{tmp_path}/results/",
                "region": "us-central1",
                "modelName": "projects/p/models/default",
                **({} if given is None else {"batchSize": str(given)}),
            }
            call(server, "POST", "projects/p/jobs", {"jobId": "a", "predictionInput": wanted})
            done = ended(server, "projects/p/jobs/a")
    assert "SUCCEEDED" in done["state"]
    assert sorted(calls, reverse=True) == [most] * (300 // most) + ([300 % most] if 300 % most else [])
