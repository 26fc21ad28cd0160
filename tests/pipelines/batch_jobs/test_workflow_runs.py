"""The workflow in examples/workflows, run by tests/support/workflows against servers that play Google's services."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipelines.config.batch_job import BatchJobConfig
from pipelines.connectors.batch_job.folder import DeadLetterFile, JobFolder, Prepared
from pipelines.connectors.batch_job.request import RequestMaker
from pipelines.cost.prices import load
from tests.servers.dataflow import JobsApi, jobs_api
from tests.servers.stand_in import Seen, stand_in
from tests.support import processes
from tests.support.cloud_storage import StorageEmulator, cloud_storage
from tests.support.commands import ROOT
from tests.support.dataflow_commands import errors, launched
from tests.support.job_server import JobServer, job_server
from tests.support.ledger import MODEL, NUMBERS, TEXTS, births
from tests.support.waiting import wait_until
from tests.support.workflows import WorkflowError, Workflows

SOURCE = yaml.safe_load((ROOT / "examples" / "workflows" / "natality-job.yaml").read_text())
STORE = "https://storage.googleapis.com"
VERTEX = "https://us-central1-aiplatform.googleapis.com"
DATAFLOW = "googleapis.dataflow.v1b3.projects.locations"
FOLDER = "jobs/00c0ffee0123"
PLACE = {"api": f"{VERTEX}/v1/", "bucket": "bucket", "folder": FOLDER}
RESOURCE = "projects/p/locations/us-central1/batchPredictionJobs/1"
ROWS = 60


@pytest.fixture
def storage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StorageEmulator]:
    with cloud_storage(tmp_path) as emulator:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", emulator.url)
        yield emulator


def workflows(storage: StorageEmulator, vertex: str, **connectors: Any) -> Workflows:
    return Workflows(SOURCE, {STORE: storage.url, VERTEX: vertex}, connectors)


def prepare(storage: StorageEmulator, *, refused: int = 0, instances: int = ROWS, **settings: Any) -> None:
    """Puts what a preparation leaves, as far as the workflow and the service look at it."""
    fed = (*TEXTS, *NUMBERS)
    rows = [{name: row[name] or "Unknown" for name in fed} | {"gestation_weeks": 39.0} for row in births(ROWS, 71)]
    lines = [json.dumps({"key": f"00c0ffee0123-00000-{number:07d}", **row}) for number, row in enumerate(rows)]
    storage.put(f"{FOLDER}/instances/00c0ffee0123.jsonl", "\n".join(lines).encode())
    config = BatchJobConfig(
        type="batch_job",
        resource="projects/p/locations/us-central1/models/default",
        folder="gs://bucket/jobs",
        signature_from=MODEL,
        **settings,
    )
    letters = (DeadLetterFile(name="d", size=1, checksum=0, rows=refused),) if refused else ()
    prepared = Prepared(
        run="run1", rows_read=ROWS + refused, instances=instances, instance_bytes=1, groups=(), dead_letters=letters
    )
    request = RequestMaker(config, "births", 0.01, load(None)).make(JobFolder(f"gs://bucket/{FOLDER}/"), prepared)
    storage.put(f"{FOLDER}/request.json", request.model_dump_json().encode())


def record(storage: StorageEmulator) -> dict[str, Any]:
    return dict(json.loads(storage.read(f"{FOLDER}/job.json")))


def leases(storage: StorageEmulator) -> list[str]:
    return storage.names(f"{FOLDER}/.lock-")


@pytest.mark.parametrize(
    ("options", "state"),
    [({}, "JOB_STATE_SUCCEEDED"), ({"outcome": "partial"}, "JOB_STATE_PARTIALLY_SUCCEEDED")],
    ids=["success", "partial success"],
)
def test_submitted_twice(storage: StorageEmulator, tmp_path: Path, options: dict[str, Any], state: str) -> None:
    """The second run finds the first one's job, by job.json, or by its name if that is lost."""
    prepare(storage)
    with job_server(tmp_path, **options) as server:
        flow = workflows(storage, server.url)
        # The local server needs some time.
        flow.sleep = lambda seconds: wait_until(lambda: server.jobs()[0]["state"] == state, "the job's end")
        found = [flow.run("predicted", **PLACE)]
        found.append(flow.run("predicted", **PLACE))
        storage.delete(f"{FOLDER}/job.json")
        found.append(flow.run("predicted", **PLACE))
        [job] = server.jobs()
    assert found == [job["name"]] * 3
    assert job["displayName"] == "beam_tf_predict_00c0ffee0123_run1_1"
    assert job["labels"] == {"run": "births", "beam_tf_predict": "00c0ffee0123"}
    assert record(storage) == {"attempt": 1, "resource": job["name"]}
    assert job["outputInfo"]["gcsOutputDirectory"].startswith(f"gs://bucket/{FOLDER}/results-1/")
    assert leases(storage) == []


def test_a_job_that_fails_says_why(storage: StorageEmulator, tmp_path: Path) -> None:
    prepare(storage)
    message = "Service agent service-1@gcp-sa-aiplatform.iam.gserviceaccount.com does not exist."
    with job_server(tmp_path, outcome="failed", message=message) as server:
        flow = workflows(storage, server.url)
        flow.sleep = lambda seconds: wait_until(lambda: "endTime" in server.jobs()[0], "the job's end")
        for _ in range(2):
            with pytest.raises(WorkflowError) as caught:
                flow.run("predicted", **PLACE)
            said = f"ended as JOB_STATE_FAILED: {message}; mend what is wrong, then run the command with --step submit"
            assert said in str(caught.value)
        assert len(server.jobs()) == 1


def test_a_full_quota_is_waited_for(storage: StorageEmulator, tmp_path: Path) -> None:
    prepare(storage)
    with job_server(tmp_path, quota=0) as server:
        flow = workflows(storage, server.url)
        with pytest.raises(WorkflowError) as caught:
            flow.run("predicted", **PLACE)
        assert server.jobs() == []
    assert caught.value.value["body"]["error"]["message"].startswith("Quota exceeded")
    assert flow.slept == [60, 120, 240, 480, 600]
    assert leases(storage) == []


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "dear": ({"max_cost": 0.001}, "model.max_cost: the job is estimated to cost"),
    "dead letters": ({"refused": 2}, "so no job is submitted; see why in gs://bucket/jobs/00c0ffee0123/dead_letters/"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_may_not_be_submitted(storage: StorageEmulator, tmp_path: Path, what: str) -> None:
    settings, said = REFUSED[what]
    prepare(storage, **settings)
    with job_server(tmp_path) as server:
        flow = workflows(storage, server.url)
        with pytest.raises(WorkflowError) as caught:
            flow.run("predicted", **PLACE)
        assert server.jobs() == []
    assert said in str(caught.value)
    assert flow.slept == []


def test_no_rows_need_no_job(storage: StorageEmulator) -> None:
    prepare(storage, instances=0)
    assert workflows(storage, "http://127.0.0.1:9").run("predicted", **PLACE) == ""


def test_a_file_that_is_known_to_be_json(storage: StorageEmulator) -> None:
    """Its content comes as a value: somebody has put it there by other means."""
    with stand_in(lambda seen: (200, b'{"attempt": 2}')) as server:
        flow = Workflows(SOURCE, {STORE: server.url}, {})
        assert flow.run("read", bucket="bucket", name="x") == {"attempt": 2}
    storage.put("y", b'{"attempt": 3}')
    assert workflows(storage, "").run("read", bucket="bucket", name="y") == {"attempt": 3}
    assert workflows(storage, "").run("read", bucket="bucket", name="z") is None


def test_nothing_is_prepared(storage: StorageEmulator) -> None:
    with pytest.raises(WorkflowError) as caught:
        workflows(storage, "http://127.0.0.1:9").run("predicted", **PLACE)
    assert f"gs://bucket/{FOLDER}/request.json is not there" in str(caught.value)


def test_a_command_at_work_is_waited_for(storage: StorageEmulator, tmp_path: Path) -> None:
    """Its lease is respected, and the job that it has submitted is found; one that is over is not waited for."""
    prepare(storage)
    storage.put(f"{FOLDER}/.lock-0123abcd", b"{}")

    def submit(seconds: float) -> None:
        storage.put(f"{FOLDER}/job.json", json.dumps({"attempt": 2, "resource": RESOURCE}).encode())
        storage.delete(f"{FOLDER}/.lock-0123abcd")

    with stand_in(lambda seen: (200, json.dumps({"state": "JOB_STATE_SUCCEEDED"}).encode())) as server:
        flow = workflows(storage, server.url)
        flow.sleep = submit
        assert flow.run("predicted", **PLACE) == RESOURCE
        assert [seen.method for seen in server.seen] == ["GET"]
    assert flow.slept == [60]


def test_a_command_is_kept_out_meanwhile(storage: StorageEmulator) -> None:
    """It says who holds the folder while the workflow submits a job."""
    prepare(storage)
    said: list[str] = []

    def answer(seen: Seen) -> tuple[int, bytes]:
        if seen.method == "POST":
            # As a command takes its lease, in a process that has the emulator's environment.
            code = "import sys; from pipelines.connectors.files.publishing import lock\n"
            code += "lock.acquire(sys.argv[1], lock.Holder.this_process('0123abcd', 'other'))"
            done = processes.run(
                [sys.executable, "-c", code, f"gs://bucket/{FOLDER}/"],
                cwd=ROOT,
                env=storage.env,
                capture_output=True,
                text=True,
                check=False,
            )
            said.append(done.stderr)
        return 200, json.dumps({"name": RESOURCE, "state": "JOB_STATE_SUCCEEDED"}).encode()

    with stand_in(answer) as server:
        assert workflows(storage, server.url).run("predicted", **PLACE) == RESOURCE
    [line] = said
    assert re.search(r"InUseError: run 'births' \([0-9a-f]{8}, process 0 on Google Cloud Workflows, since ", line), line
    assert leases(storage) == []


def test_two_at_once(storage: StorageEmulator) -> None:
    """Both hold a lease, and none of them goes on before the other has let go."""
    storage.put(f"{FOLDER}/.lock-0123abcd", b"{}")
    storage.put(f"{FOLDER}/.lock-4567abcd", b"{}")
    flow = workflows(storage, "http://127.0.0.1:9")
    for lease in ("0123abcd", "4567abcd"):
        with pytest.raises(WorkflowError, match="somebody else is at work on the same job"):
            flow.run("require_alone", bucket="bucket", folder=FOLDER, lease=f"{FOLDER}/.lock-{lease}")
    storage.delete(f"{FOLDER}/.lock-0123abcd")
    flow.run("require_alone", bucket="bucket", folder=FOLDER, lease=f"{FOLDER}/.lock-4567abcd")


def test_a_resubmission_that_was_stopped(storage: StorageEmulator) -> None:
    prepare(storage)
    storage.put(f"{FOLDER}/job.json", b'{"attempt":2,"resource":""}')
    with pytest.raises(WorkflowError, match="a command with --resubmit was stopped before its job was known"):
        workflows(storage, "http://127.0.0.1:9").run("predicted", **PLACE)
    assert leases(storage) == []


def test_an_answer_that_is_lost(storage: StorageEmulator) -> None:
    """The job was made, and the call failed: it is looked for before anything is posted again, on all pages."""
    prepare(storage)
    jobs: list[dict[str, Any]] = [{"name": f"other-{number}", "displayName": "other"} for number in range(3)]

    def answer(seen: Seen) -> tuple[int, bytes]:
        if seen.method == "POST":
            jobs.append({**json.loads(seen.body), "name": RESOURCE, "state": "JOB_STATE_SUCCEEDED"})
            return 503, b'{"error": {"code": 503, "message": "come again"}}'
        if seen.path.startswith(f"/v1/{RESOURCE}"):
            return 200, json.dumps(jobs[-1]).encode()
        page = 1 if "pageToken=next" in seen.path else 0
        more = {} if page else {"nextPageToken": "next"}
        return 200, json.dumps({"batchPredictionJobs": jobs[3 * page : 3 * page + 3], **more}).encode()

    with stand_in(answer) as server:
        flow = workflows(storage, server.url)
        assert flow.run("predicted", **PLACE) == RESOURCE
        posted = [seen.path for seen in server.seen if seen.method == "POST"]
        listed = next(seen.path for seen in server.seen if "filter=" in seen.path)
    assert posted == ["/v1/projects/p/locations/us-central1/batchPredictionJobs"]
    assert "filter=labels.beam_tf_predict%3D%2200c0ffee0123%22&" in listed
    assert record(storage) == {"attempt": 1, "resource": RESOURCE}


def ended(states: list[Any], **settings: float) -> Workflows:
    """Waits for a job that is in these states, one after the other, or that answers with these errors."""
    left = list(states)

    def answer(seen: Seen) -> tuple[int, bytes]:
        state = left.pop(0)
        if isinstance(state, int):
            return state, json.dumps({"error": {"code": state, "message": "no"}}).encode()
        told: Mapping[str, Any] = {"state": state} if isinstance(state, str) else state
        return 200, json.dumps(told).encode()

    with stand_in(answer) as server:
        flow = Workflows(SOURCE, {VERTEX: server.url}, {})
        wait = {"poll_s": 30, "deadline_s": 1_000, **settings}
        flow.run("ended", api=PLACE["api"], resource=RESOURCE, **wait)
    assert left == []
    return flow


def test_states_that_are_waited_through() -> None:
    """Also those that nobody knows yet, none at all, and a service that is away for a while."""
    waiting = [{}, "QUEUED", "PENDING", "RUNNING", "PAUSED", "CANCELLING", "UPDATING", "DREAMING"]
    states = [f"JOB_STATE_{state}" if isinstance(state, str) else state for state in waiting]
    flow = ended([*states, 503, 429, "JOB_STATE_SUCCEEDED"])
    assert flow.slept[:5] == [5, 7.5, 11.25, 16.875, 25.3125]
    assert set(flow.slept[5:]) == {30}
    assert len(flow.slept) == len(states) + 2


@pytest.mark.parametrize("state", ["SUCCEEDED", "PARTIALLY_SUCCEEDED"])
def test_states_with_results(state: str) -> None:
    assert ended([f"JOB_STATE_{state}"]).slept == []


@pytest.mark.parametrize("state", ["FAILED", "EXPIRED", "CANCELLED"])
def test_states_without_results(state: str) -> None:
    for error, said in (({}, "the service does not say why"), ({"error": {"message": "no room"}}, "no room")):
        with pytest.raises(WorkflowError) as caught:
            ended([{"state": f"JOB_STATE_{state}", **error}])
        assert f"the job {RESOURCE} ended as JOB_STATE_{state}: {said}; mend what is wrong" in str(caught.value)


def test_errors_that_end_the_wait() -> None:
    with pytest.raises(WorkflowError, match="the service does not know the job"):
        ended(["JOB_STATE_RUNNING", 404])
    with pytest.raises(WorkflowError) as caught:
        ended([403])
    assert caught.value.value["body"]["error"]["message"] == "no"
    with pytest.raises(WorkflowError, match="did not end within model.deadline_s and goes on"):
        ended(["JOB_STATE_RUNNING"], deadline_s=0)


@pytest.fixture
def api(storage: StorageEmulator) -> Iterator[JobsApi]:
    with jobs_api(storage.env) as server:
        yield server


def connectors(storage: StorageEmulator, api: JobsApi) -> dict[str, Any]:
    """What the connectors of Dataflow do: a launcher's command writes the job, which then runs."""
    names = {2: "JOB_STATE_RUNNING", 3: "JOB_STATE_DONE", 4: "JOB_STATE_FAILED"}

    def told(job: Any, view: str = "") -> dict[str, Any]:
        labels = {"labels": job.proto["labels"]} if view == "JOB_VIEW_DESCRIPTION" else {}
        return {"id": job.id, "name": job.launched, "currentState": names[job.state], **labels}

    def launch(projectId: str, location: str, body: dict[str, Any]) -> dict[str, Any]:
        wanted = body["launchParameter"]
        given = {name: value for name, value in wanted["parameters"].items() if name != "sdk_container_image"}
        done = launched(storage, api, wanted["jobName"], *(f"--{name}={value}" for name, value in given.items()))
        assert done.returncode == 0, errors(done)
        job: Any = api.start_template(storage.read(f"staging/template_launches/{wanted['jobName']}/job_object"))
        job.launched = wanted["jobName"]
        return {"job": told(job)}

    def list_active(projectId: str, location: str, filter: str, pageSize: int) -> dict[str, Any]:
        assert filter == "ACTIVE"
        active = [told(job) for job in api.jobs.values() if job.state == 2]
        return {"jobs": active} if active else {}

    return {
        f"{DATAFLOW}.flexTemplates.launch": launch,
        f"{DATAFLOW}.jobs.list": list_active,
        f"{DATAFLOW}.jobs.get": lambda projectId, location, jobId, view: told(api.jobs[jobId], view),
    }


def test_the_whole_workflow(storage: StorageEmulator, api: JobsApi, tmp_path: Path) -> None:
    """Rows go in and predictions come out; started again, it finds the same job, and joins again."""
    storage.put("in/births.csv", (ROOT / "data" / "births-nc-2001.csv").read_bytes())
    storage.put_folder("models/v1", ROOT / "model" / "trained" / "v1")
    config = json.loads((ROOT / "configs" / "natality-job.json").read_text())
    with job_server(tmp_path) as server:
        model = server.model(tmp_path, signature_from="gs://bucket/models/v1") | {"folder": "gs://bucket/jobs"}
        places = {"output": "gs://bucket/out/p", "dead_letters": "gs://bucket/out/d"}
        config |= {name: {**config[name], "path": path} for name, path in places.items()}
        config |= {"source": {**config["source"], "path": "gs://bucket/in/*.csv"}, "model": model}
        storage.put("configs/job.json", json.dumps(config).encode())
        flow = workflows(storage, server.url, **connectors(storage, api))
        flow.sleep = lambda seconds: wait_until(lambda: is_idle(api, server), "the end of what runs")
        arguments = {"name": "births", "config": "gs://bucket/configs/job.json", "template": "gs://bucket/t.json"}
        arguments |= {"image": "image", "bucket": "bucket", "folder": "jobs", "region": "us-central1"}
        found = [flow.run(args=arguments) for _ in range(2)]
        [job] = server.jobs()
    assert [each["prediction_job"] for each in found] == [job["name"]] * 2
    manifest = json.loads(storage.read("out/.p.manifest.json"))
    assert (manifest["rows_read"], manifest["rows_written"]) == (1_450, 1_450)
    shards = [name for name in storage.names("out/p-") if name.endswith(".csv")]
    assert sum(len(storage.read(name).splitlines()) - 1 for name in shards) == 1_450


def is_idle(api: JobsApi, server: JobServer) -> bool:
    return all(job.state != 2 for job in api.jobs.values()) and all("endTime" in job for job in server.jobs())
