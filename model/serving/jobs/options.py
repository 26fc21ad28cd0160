"""Reads what the command line of the server says of batch prediction jobs."""

from __future__ import annotations

import argparse
import os
from dataclasses import dataclass, field

from model.argument_types import amount, count, count_from_zero, share

OUTCOMES = ("success", "failed", "partial")
ERRORS = ("beside", "inline", "both")
FILE_NAMES = ("results", "predictions")
ORDERS = ("finished", "reversed")


@dataclass(frozen=True)
class JobOptions:
    """Describes how jobs are run, and how they misbehave.

    Attributes:
      folders: local folders that jobs may read and write.
      workers: threads of a job.
      shards: files of results of a job.
      state_s: how long a job stays in each state before it runs, at least.
      run_s: how long it runs, at least.
      outcome: how jobs end; one of OUTCOMES.
      message: of jobs that fail.
      row_error_rate: the share of rows that are refused, told from their content.
      shard_error_rate: the share of input files that are not tried.
      errors: where refused rows are named; one of ERRORS.
      file_names: of results; one of FILE_NAMES.
      order: of results; one of ORDERS.
      duplicate_rate: the share of results that are written twice.
      foreign_rate: the share of results beside which one is written that nobody asked for.
      reset_rate: the share of calls of the API whose connection is reset once they were done.
      quota: how many jobs may be submitted; None for no limit.
      denied: whether callers are refused.
      seed: of the faults.
    """

    folders: tuple[str, ...] = field(default_factory=lambda: (os.getcwd(),))
    workers: int = 2
    shards: int = 2
    state_s: float = 0.0
    run_s: float = 0.0
    outcome: str = "success"
    message: str = "the job failed on purpose"
    row_error_rate: float = 0.0
    shard_error_rate: float = 0.0
    errors: str = "beside"
    file_names: str = "results"
    order: str = "finished"
    duplicate_rate: float = 0.0
    foreign_rate: float = 0.0
    reset_rate: float = 0.0
    quota: int | None = None
    denied: bool = False
    seed: int = 0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of jobs to a command line."""
    group = parser.add_argument_group("batch prediction jobs, and their misbehaviour on purpose")
    add = group.add_argument
    add(
        "--job-folder",
        action="append",
        type=_folder,
        metavar="DIR",
        help="a local folder that jobs may use (the working directory)",
    )
    add("--job-workers", type=count, default=2, metavar="N", help="threads of a job (default: %(default)s)")
    add("--job-shards", type=count, default=2, metavar="N", help="files of results of a job (default: %(default)s)")
    add("--job-state-seconds", type=amount, default=0.0, metavar="S", help="in each state before a job runs")
    add("--job-run-seconds", type=amount, default=0.0, metavar="S", help="that a job runs at least")
    add("--job-outcome", choices=OUTCOMES, default="success", help="how jobs end (default: %(default)s)")
    add("--job-message", default="the job failed on purpose", metavar="TEXT", help="of jobs that fail")
    add("--job-row-error-rate", type=share, default=0.0, metavar="R", help="the share of rows that are refused")
    add("--job-shard-error-rate", type=share, default=0.0, metavar="R", help="the share of input files not tried")
    add("--job-errors", choices=ERRORS, default="beside", help="where refused rows are named (default: %(default)s)")
    add("--job-file-names", choices=FILE_NAMES, default="results", help="of results (default: %(default)s)")
    add("--job-order", choices=ORDERS, default="finished", help="of results (default: %(default)s)")
    add("--job-duplicate-rate", type=share, default=0.0, metavar="R", help="the share of results written twice")
    add("--job-foreign-rate", type=share, default=0.0, metavar="R", help="the share of results that nobody asked for")
    add("--job-reset-rate", type=share, default=0.0, metavar="R", help="the share of calls whose answer is lost")
    add("--job-quota", type=count_from_zero, metavar="N", help="jobs that may be submitted; more get 429")
    add("--job-denied", action="store_true", help="refuse callers with 403")


def _folder(path: str) -> str:
    if not os.path.isdir(path):
        raise argparse.ArgumentTypeError(f"{path} is not a folder")
    return os.path.realpath(path)


def options_of(parsed: argparse.Namespace) -> JobOptions:
    """Returns what a command line says."""
    return JobOptions(
        folders=tuple(parsed.job_folder or (os.path.realpath(os.getcwd()),)),
        workers=parsed.job_workers,
        shards=parsed.job_shards,
        state_s=parsed.job_state_seconds,
        run_s=parsed.job_run_seconds,
        outcome=parsed.job_outcome,
        message=parsed.job_message,
        row_error_rate=parsed.job_row_error_rate,
        shard_error_rate=parsed.job_shard_error_rate,
        errors=parsed.job_errors,
        file_names=parsed.job_file_names,
        order=parsed.job_order,
        duplicate_rate=parsed.job_duplicate_rate,
        foreign_rate=parsed.job_foreign_rate,
        reset_rate=parsed.job_reset_rate,
        quota=parsed.job_quota,
        denied=parsed.job_denied,
        seed=parsed.seed,
    )
