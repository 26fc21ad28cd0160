"""Runs a batch prediction job daily with Airflow 3: prepare, submit, wait and join are tasks of their own.

Put this file into Airflow's folder of DAGs and set, for its workers:

    BATCH_COMMAND     the command, by default `beam-tf-predict batch` of the installed package
    BATCH_CONFIG      the config, by default configs/natality-job.json
    BATCH_ARGUMENTS   further arguments, a template of Airflow's: --set source.path=gs://bucket/births/{{ ds }}/*.csv

Each task runs one step. A step that is done is not done again, so a retry is safe wherever the task was stopped: it
goes on where the step was, and the job is submitted, and paid for, once. The steps leave what they know of each other
in `model.folder`, so tasks may run on different workers if all of them reach it (gs://). Rows that were predicted
already are not paid for again: give each day a path of its own, by BATCH_ARGUMENTS.
"""

from __future__ import annotations

import os
import shlex
from datetime import timedelta

import pendulum
from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG

COMMAND = os.environ.get("BATCH_COMMAND", "beam-tf-predict batch")
CONFIG = os.environ.get("BATCH_CONFIG", "configs/natality-job.json")
ARGUMENTS = os.environ.get("BATCH_ARGUMENTS", "")


def step(name: str, retries: int, timeout: timedelta) -> BashOperator:
    """Makes the task of one step."""
    return BashOperator(
        task_id=name,
        bash_command=f"{COMMAND} --config {shlex.quote(CONFIG)} --step {name} {ARGUMENTS}",
        append_env=True,
        retries=retries,
        retry_delay=timedelta(minutes=1),
        retry_exponential_backoff=True,
        execution_timeout=timeout,
    )


with DAG(
    "natality_job",
    description="Predicts births by a batch prediction job",
    schedule="@daily",
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    max_active_runs=1,
    tags=["beam-tf-predict"],
) as dag:
    prepare = step("prepare", 3, timedelta(hours=2))
    submit = step("submit", 3, timedelta(minutes=30))
    wait = step("wait", 3, timedelta(hours=24))
    join = step("join", 3, timedelta(hours=2))
    _ = prepare >> submit >> wait >> join
