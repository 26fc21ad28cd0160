"""Says which ways are compared, and turns each into changes of the run that the comparison is based on."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pipelines.comparison.results import Way, WayKind
from pipelines.config.comparison import ComparisonConfig, LocalServer, WayConfig
from pipelines.config.load import problems_with
from pipelines.plan import Plan

_KINDS: dict[str, WayKind] = {"saved_model": "direct", "endpoint": "endpoint", "batch_job": "batch_job"}
_LOCAL = "projects/local"
_RESOURCES = {
    "ai_platform": f"{_LOCAL}/models/default",
    "vertex": f"{_LOCAL}/locations/us-central1/endpoints/default",
}
"""What the model is called where it is on a local server."""
_GRPC = frozenset({"tf_serving_grpc"})
_IN_REQUEST = 1000
"""Rows of a request, by default: larger ones gain little, and services refuse them."""
_SMALL = 10_000
"""Rows that single records are tried with in batch runs: more of them only take longer."""


@dataclass(frozen=True)
class ServerAddress:
    """Says where a local server answers.

    Attributes:
      rest: its address, http://host:port.
      grpc: host:port.
    """

    rest: str
    grpc: str


_ANY_ADDRESS = ServerAddress("http://127.0.0.1:1", "127.0.0.1:1")
"""Stands for that of a local server that does not run yet."""


@dataclass(frozen=True)
class CompleteWay:
    """Describes a way with all that a run needs.

    Attributes:
      name: as the config has it.
      model: keys of the run's model; the address of a local server is not in it.
      batching: keys of the run's batching.
      server: how the local server is started; None if the way needs none.
      max_load: the largest load to run it at; None for all.
    """

    name: str
    model: dict[str, Any]
    batching: dict[str, Any]
    server: LocalServer | None
    max_load: float | None

    @property
    def kind(self) -> WayKind:
        """Returns where the model runs."""
        return _KINDS.get(str(self.model.get("type", "saved_model")), "direct")

    def is_run_at(self, load: float) -> bool:
        """Tells whether it is run at a load."""
        return self.max_load is None or load <= self.max_load

    @property
    def is_single(self) -> bool:
        """Tells whether each call has one record."""
        return self.batching.get("max_rows") == 1

    @property
    def waits_s(self) -> float:
        """Returns how long a stream may wait for a batch to fill."""
        if self.is_single:
            return 0.0
        return float(self.batching.get("max_wait_ms", self.batching.get("latency_budget_ms", 50))) / 1000

    def changes(self, address: ServerAddress | None, jobs: str) -> dict[str, Any]:
        """Returns what changes in the run's config.

        Args:
          address: of the local server, if the way needs one.
          jobs: folder for batch prediction jobs, where the way names none.
        """
        model = dict(self.model)
        if address is not None:
            model["url"] = address.grpc if model.get("protocol") in _GRPC else address.rest
        if self.kind == "batch_job" and "folder" not in model:
            model["folder"] = jobs
        return {"model": model, "batching": self.batching}

    def described(self, runtime: str | None) -> Way:
        """Returns the way as results have it.

        Args:
          runtime: what runs a SavedModel in the workers.
        """
        settings = []
        if self.kind == "direct":
            settings.append(f"{runtime or 'native'} runtime")
        elif self.kind == "endpoint":
            settings.append(str(self.model.get("protocol")))
        else:
            settings.append(f"service {self.model.get('service', 'vertex')}")
        if self.kind != "batch_job":
            rows = self.batching.get("max_rows", 16384)
            settings.append("one row in a call" if rows == 1 else f"at most {rows:,} rows in a call")
        for key, word in (("max_wait_ms", "ms of waiting at most"), ("latency_budget_ms", "ms of latency as budget")):
            if key in self.batching and not self.is_single:
                settings.append(f"{self.batching[key]:g} {word}")
        if self.server is not None:
            settings.append("local server, on the same cores")
            settings += [f"{self.server.latency_ms:g} ms added to each request"] * bool(self.server.latency_ms)
            quota = self.server.quota_qps
            settings += [] if quota is None else [f"quota of {quota:g} requests a second"]
            settings += [f"serves {self.server.model}"] * bool(self.server.model)
        return Way(name=self.name, kind=self.kind, single=self.is_single, settings=tuple(settings))


def ways_of(config: ComparisonConfig, content: dict[str, Any], plan: Plan) -> list[CompleteWay]:
    """Returns the ways of a comparison, complete, in the order of its config.

    Args:
      config: of the comparison.
      content: the config of the run, as it stands in its file.
      plan: of the run.
    """
    return [_complete(name, way, content, plan) for name, way in given_ways(config, plan).items()]


def given_ways(config: ComparisonConfig, plan: Plan) -> dict[str, WayConfig]:
    """Returns the ways that a comparison's config names, or the usual ones if it names none.

    Args:
      config: of the comparison.
      plan: of the run.
    """
    return config.ways or _usual(plan)


def problems_of(ways: Sequence[CompleteWay], config_path: str, plan: Plan) -> list[str]:
    """Returns what is wrong with the configs that ways make of the run's, one line each; nothing is started for it.

    Args:
      ways: the ways, complete.
      config_path: of the run.
      plan: of the run.
    """
    problems = []
    for way in ways:
        changes = way.changes(None if way.server is None else _ANY_ADDRESS, "jobs")
        problems += [f"ways.{way.name}.{problem}" for problem in problems_with(config_path, [json.dumps(changes)])]
        if way.kind == "batch_job" and not plan.config.is_batch:
            problems.append(
                f"ways.{way.name}.model.type: batch_job is for batch runs, and the source of {config_path} is a "
                "stream; give a saved_model or an endpoint"
            )
    return problems


def _usual(plan: Plan) -> dict[str, WayConfig]:
    """The ways that are compared if the config names none."""
    is_batch = plan.config.is_batch
    single = {"max_rows": 1}
    small = _SMALL if is_batch else None
    of_request: dict[str, Any] = {"max_rows": _IN_REQUEST}
    if not is_batch:
        of_request |= {"max_wait_ms": plan.config.batching.max_wait_ms}
    type = plan.config.model.type
    own = {"type": type}
    if type != "saved_model":
        found = {type.replace("_", " "): _way(own)}
        if type == "endpoint":
            found = {
                "endpoint, micro-batches": _way(own, batching=of_request),
                "endpoint, single records": _way(own, batching=single, max_load=small),
            }
        if getattr(plan.config.model, "signature_from", None):
            found = {"in the workers": _way({"type": "saved_model"})} | found
        return found
    grpc = {"type": "endpoint", "protocol": "tf_serving_grpc"}
    if not is_batch:
        return {
            "in the workers, micro-batches": _way(own),
            "in the workers, single records": _way(own, batching=single),
            "endpoint, micro-batches": _way(grpc, batching=of_request),
            "endpoint, single records": _way(grpc, batching=single),
        }
    rest = {"type": "endpoint", "protocol": "tf_serving_rest"}
    return {
        "in the workers": _way(own),
        "endpoint, gRPC": _way(grpc, batching=of_request),
        "endpoint, REST": _way(rest, batching=of_request),
        "endpoint, single records": _way(grpc, batching=single, max_load=small),
        "batch job": _way({"type": "batch_job"}),
    }


def _way(model: dict[str, Any], batching: dict[str, Any] | None = None, max_load: float | None = None) -> WayConfig:
    return WayConfig.model_validate({"model": model, "batching": batching or {}, "max_load": max_load})


def _complete(name: str, way: WayConfig, content: dict[str, Any], plan: Plan) -> CompleteWay:
    """Fills in what a way leaves to the run: its model's keys, the signature, a local server."""
    base = dict(content.get("model") or {})
    kind = str(way.model.get("type", base.get("type", "saved_model")))
    model = {**(base if base.get("type", "saved_model") == kind else {}), **way.model, "type": kind}
    needs_server = False
    saved_model = plan.model.path if plan.config.model.type == "saved_model" else base.get("signature_from")
    if kind == "saved_model":
        model.setdefault("path", saved_model)
        model.setdefault("signature", plan.signature.name)
    else:
        needs_server = way.server is not None or not ("url" in model or "resource" in model)
        if "inputs" not in model and saved_model is not None and (kind == "batch_job" or needs_server):
            model.setdefault("signature_from", saved_model)
        if plan.signature.name != "serving_default":
            model.setdefault("signature", plan.signature.name)
    if needs_server and kind == "batch_job":
        model.setdefault("resource", f"{_LOCAL}/locations/us-central1/models/default")
        model.setdefault("poll_s", 0.5)
    if needs_server and kind == "endpoint":
        protocol = model.setdefault("protocol", "tf_serving_grpc")
        if protocol in _RESOURCES:
            model.setdefault("resource", _RESOURCES[protocol])
    batching = {**(content.get("batching") or {}), **way.batching}
    if batching.get("max_rows") == 1:
        batching.pop("max_wait_ms", None)
        batching.pop("latency_budget_ms", None)
    server = (way.server or LocalServer.model_validate({})) if needs_server else None
    return CompleteWay(name, model, batching, server, way.max_load)


def served_model(server: LocalServer, plan: Plan) -> str | None:
    """Returns the SavedModel that a local server is to serve; None if neither server nor run name one."""
    if server.model is not None:
        return server.model
    if plan.config.model.type == "saved_model":
        return plan.model.path
    found = getattr(plan.config.model, "signature_from", None)
    return None if found is None else os.fspath(found)
