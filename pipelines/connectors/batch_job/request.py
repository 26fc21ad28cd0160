"""Says how a job is submitted, for a scheduler that calls the service without our command."""

from __future__ import annotations

from dataclasses import dataclass

from pipelines.config.batch_job import BatchJobConfig
from pipelines.connectors.batch_job import client, steps
from pipelines.connectors.batch_job.folder import JobFolder, JobRequest, Prepared
from pipelines.cost import batch_job as costs
from pipelines.cost.prices import Prices
from pipelines.plan import Plan


@dataclass(frozen=True)
class RequestMaker:
    """Makes the request for the job of a run once its rows are prepared; it travels to the workers.

    Attributes:
      config: of the model.
      name: of the run.
      max_fraction: largest share of dead letters.
      prices: what nodes cost.
    """

    config: BatchJobConfig
    name: str
    max_fraction: float
    prices: Prices

    @classmethod
    def of(cls, plan: Plan, prices: Prices) -> RequestMaker:
        """Returns the one for a plan whose model is called by a job."""
        assert isinstance(plan.config.model, BatchJobConfig)
        return cls(plan.config.model, plan.config.name, plan.config.dead_letters.max_fraction, prices)

    def make(self, folder: JobFolder, prepared: Prepared) -> JobRequest:
        """Returns the request for the first job over prepared rows."""
        service = client.dry_service_of(self.config)
        dear = costs.over(self.config, costs.estimated(self.config, prepared.instances, self.prices))
        return JobRequest(
            jobs=service.jobs,
            body=service.body(steps.order_of(self.config, self.name, folder, prepared, attempt=1)),
            instances=prepared.instances,
            refused=too_many(folder, prepared, self.max_fraction) or "; ".join(dear),
            poll_s=self.config.poll_s,
            deadline_s=self.config.deadline_s,
        )


def too_many(folder: JobFolder, prepared: Prepared, most: float) -> str:
    """Says that too many rows were refused for the run to be paid for; empty if not.

    Args:
      folder: of the job.
      prepared: what was prepared.
      most: largest share of dead letters.
    """
    fraction = prepared.rows_dead_lettered / prepared.rows_read if prepared.rows_read else 0.0
    if fraction <= most:
        return ""
    return (
        f"{fraction:.2%} of the rows were dead-lettered while they were prepared, and dead_letters.max_fraction "
        f"allows {most:.2%}, so no job is submitted; see why in {folder.dead_letters}, mend, then run again"
    )
