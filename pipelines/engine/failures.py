"""Says what a pipeline failed with: a line for people, and one traceback with it where there is more to know."""

from __future__ import annotations

import contextlib
import logging
import re
import traceback
from collections.abc import Iterator

from inference.errors import EndpointConfigError, TooManyFailuresError
from model.errors import ModelLoadError
from model.secrets import masked
from pipelines.config.errors import ConfigError
from pipelines.connectors.batch_job.stored_rows import StoredRowsError
from pipelines.connectors.files.publishing import step
from pipelines.connectors.files.publishing.commit_record import PublishError
from pipelines.connectors.files.publishing.delivery import DeliveryRefusedError

_REPEATING = (
    "inference.endpoint.handler",
    "apache_beam.runners.common",
    "apache_beam.runners.worker.sdk_worker",
    "apache_beam.runners.worker.data_plane",
)
_OF_OTHERS = ("", "apache_beam.runners.portability.local_job_service")
"""Loggers of what a job server says of its job, and worker processes of their work."""

_TRACEBACK = "Traceback (most recent call last):\n"
_RAISED_AGAIN = "\n\nDuring handling of the above exception, another exception occurred:\n\n"
_STEP = "[while running "
_STEP_NAME = re.compile(re.escape(_STEP) + "'([^']+)'")
_RPC = re.compile(r'status = StatusCode\.(\w+)\s+details = "(.*)"')
"""Finds what a service has said in the text of an error of gRPC, whose first line says nothing."""


class RunFailedError(Exception):
    """Raised when a pipeline did not run to its end. The message is for people; `details` is a traceback, if any."""

    def __init__(self, message: str, details: str, *, incomplete: bool = False) -> None:
        super().__init__(masked(message))
        self.details = masked(details)
        self.incomplete = incomplete


@contextlib.contextmanager
def said_once() -> Iterator[None]:
    """Silences Beam in this process about what fails a run: it says it four times, and the run once more."""
    from apache_beam.runners.worker import sdk_worker

    loggers = [logging.getLogger(name) for name in _REPEATING]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    sdk_worker.print = lambda *_, **__: None
    for name in _OF_OTHERS:
        logging.getLogger(name).addFilter(_tells_of_no_step)
    try:
        yield
    finally:
        for name in _OF_OTHERS:
            logging.getLogger(name).removeFilter(_tells_of_no_step)
        del sdk_worker.print
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _tells_of_no_step(record: logging.LogRecord) -> bool:
    return _STEP not in record.getMessage()


def failed(error: Exception, consequence: str = "nothing was published") -> RunFailedError | ConfigError:
    """Makes the error that says on one line why a pipeline failed, and what became of the output."""
    text = str(error)
    of_step = _traceback_of_step(text)
    details = of_step or traceback.format_exc()
    if EndpointConfigError.__name__ in text:
        return ConfigError([f"model: {_said(text, EndpointConfigError) or 'the server refuses'}; {consequence}"])
    if ModelLoadError.__name__ in text:
        return ConfigError([f"model: {_said(text, ModelLoadError) or 'it cannot be loaded'}; {consequence}"])
    if TooManyFailuresError.__name__ in text:
        # Its rows' errors say all that there is to know: the runner's own details would only hide them.
        said = _said(text, TooManyFailuresError)
        advice = "dead_letters.max_fraction=1 has all rows tried, and their dead letters written"
        return RunFailedError(f"{said}; {consequence}; {advice}", "", incomplete=True)
    if step.ResultsMisfitError.__name__ in text:
        said = f"{_said(text, step.ResultsMisfitError)}; --resubmit submits a new job over the same instances"
        return RunFailedError(f"the job's results do not fit the rows, so {consequence}: {said}", "", incomplete=True)
    if step.UnbalancedError.__name__ in text:
        said = _said(text, step.UnbalancedError)
        return RunFailedError(f"rows are missing, so {consequence}: {said}", details, incomplete=True)
    for kind in (DeliveryRefusedError, PublishError, StoredRowsError):
        if f"{kind.__name__}:" in text:
            return RunFailedError(f"{_said(text, kind)}; {consequence}", "")
    if refused := _RPC.search(text):
        where = _STEP_NAME.search(text)
        place = f" (in step {where[1]})" if where else ""
        return RunFailedError(f"{refused[1]}: {refused[2][:500]}{place}; {consequence}", "")
    lines = [line.strip() for line in (of_step or text).splitlines() if line.strip() and not line.startswith(" ")]
    if len(lines) > 1 and lines[0].startswith("Dataflow pipeline failed"):
        lines = lines[1:] if lines[1:] != ["None"] else ["the job failed, and Dataflow does not say why: see its log"]
    said = next(
        (line for line in reversed(lines) if "Error" in line or "Exception" in line), lines[-1] if lines else ""
    )
    said = re.sub(r"^(RuntimeError: *:? *)+", "", said.split(_STEP)[0]).strip(" :")
    return RunFailedError(f"{said[:500] or type(error).__name__}; {consequence}", details)


def _traceback_of_step(text: str) -> str:
    """Returns the traceback of what a step has raised, in the text of a runner's error; empty if it holds none.

    Beam raises it again with the step's name in its message, so that a runner tells all of it twice.
    """
    _, start, rest = text.partition(_TRACEBACK)
    raised = (start + rest).split(_RAISED_AGAIN)
    again = next((place for place, each in enumerate(raised) if place and _STEP in each), 0)
    return _RAISED_AGAIN.join(raised[:again])


def _said(text: str, error: type[Exception]) -> str:
    """Finds what an error of ours says in the text that Beam makes of it; on one line."""
    said = text.split(error.__name__ + ":", 1)[-1].split(_STEP)[0].strip()
    return said.splitlines()[0] if said else ""
