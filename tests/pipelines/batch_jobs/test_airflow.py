"""The DAG in examples/airflow, loaded and run by Airflow itself, in an environment of its own."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
from pathlib import Path

import pytest

from tests.servers import tools
from tests.support import processes
from tests.support.commands import ROOT
from tests.support.job_server import config_of, job_server
from tests.support.ledger import births, books_of, write_rows

DAG = ROOT / "examples" / "airflow" / "natality_job.py"
RUN = """\
import importlib.util, json, sys
from airflow.models.dagbag import DagBag
bag = DagBag(sys.argv[1], include_examples=False)
assert not bag.import_errors, bag.import_errors
spec = importlib.util.spec_from_file_location("natality_job", sys.argv[1] + "/natality_job.py")
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
states = []
for _ in range(2):
    run = module.dag.test()
    states.append([str(run.state), {task.task_id: str(task.state) for task in run.get_task_instances()}])
print("FOUND " + json.dumps([sorted(bag.dag_ids), states]))
"""


@pytest.fixture(scope="module")
def python() -> Path:
    place = tools.environment("airflow", ROOT / "tests" / "servers" / "airflow" / "requirements.txt", "190 MB")
    return place / "bin" / "python"


def test_the_dag_runs_and_a_second_run_pays_nothing(tmp_path: Path, python: Path) -> None:

    file = write_rows(tmp_path / "in.csv", "csv", births(200, 41))
    home = tmp_path / "airflow"
    folder = home / "dags"
    folder.mkdir(parents=True)
    shutil.copy(DAG, folder)
    with job_server(tmp_path) as server:
        config = config_of(tmp_path, tmp_path / "nothing.csv", server.model(tmp_path))
        env = {
            **os.environ,
            "AIRFLOW_HOME": str(home),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__DAGS_FOLDER": str(folder),
            "BATCH_COMMAND": f"cd {shlex.quote(str(ROOT))} && {shlex.quote(sys.executable)} -m pipelines.batch",
            "BATCH_CONFIG": config,
            "BATCH_ARGUMENTS": f"--set source.path={file.parent}/{{{{ 'in' }}}}.csv",
        }
        for command in ([str(python.parent / "airflow"), "db", "migrate"], [str(python), "-c", RUN, str(folder)]):
            done = processes.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        [job] = server.jobs()
    [line] = [line for line in done.stdout.splitlines() if line.startswith("FOUND ")]
    dags, runs = json.loads(line.removeprefix("FOUND "))
    assert dags == ["natality_job"]
    assert runs == [["success", dict.fromkeys(("prepare", "submit", "wait", "join"), "success")]] * 2
    assert job["state"] == "JOB_STATE_SUCCEEDED"
    assert len(books_of(tmp_path).output) == 200
