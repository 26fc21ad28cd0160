"""The manifests of examples/flink/kubernetes fit the schema of Flink's operator, and name what this project has.

The schema beside this file is that of the operator's FlinkDeployment (Apache-2.0,
helm/flink-kubernetes-operator/crds/flinkdeployments.flink.apache.org-v1.yml of apache/flink-kubernetes-operator, commit
6e9caeb4), as JSON, without descriptions and the status that the operator writes.
"""

from __future__ import annotations

import copy
import json
import lzma
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.commands import ROOT

FOLDER = ROOT / "examples" / "flink" / "kubernetes"
_PACKED = (Path(__file__).parent / "flinkdeployment.schema.json.xz").read_bytes()
SPEC = json.loads(lzma.decompress(_PACKED))["properties"]["spec"]
_TYPES: dict[str, type | tuple[type, ...]] = {
    "object": dict, "array": list, "string": str, "boolean": bool, "integer": int, "number": (int, float),
}  # fmt: skip


def problems(value: Any, schema: dict[str, Any], path: str = "") -> Iterator[str]:
    """Yields what of a manifest the API server would refuse or drop: it knows types, enums and the names of fields."""
    is_wrong_kind = "type" in schema and not isinstance(value, _TYPES[schema["type"]])
    if is_wrong_kind or (isinstance(value, bool) and schema.get("type") in ("integer", "number")):
        yield f"{path}: not of type {schema['type']}: {value!r}"
        return
    if "enum" in schema and value not in schema["enum"]:
        yield f"{path}: not one of {schema['enum']}: {value!r}"
    if isinstance(value, list):
        for index, item in enumerate(value):
            yield from problems(item, schema.get("items", {}), f"{path}[{index}]")
    if isinstance(value, dict) and not schema.get("x-kubernetes-preserve-unknown-fields"):
        for name, item in value.items():
            known = schema.get("properties", {}).get(name, schema.get("additionalProperties"))
            if known is None:
                yield f"{path}.{name}: unknown"
            else:
                yield from problems(item, known, f"{path}.{name}")


@pytest.fixture
def cluster() -> dict[str, Any]:
    """The manifest of the cluster; names and labels are Kubernetes' own."""
    [manifest] = yaml.safe_load_all((FOLDER / "cluster.yaml").read_text("utf-8"))
    assert set(manifest.pop("metadata")) == {"name"}
    return dict(manifest)


def test_the_cluster_fits_the_operators_schema(cluster: dict[str, Any]) -> None:
    assert (cluster["apiVersion"], cluster["kind"]) == ("flink.apache.org/v1beta1", "FlinkDeployment")
    assert list(problems(cluster["spec"], SPEC)) == []


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        (("flinkVersion",), "v1_9", "not one of"),
        (("jobManager", "resource", "cpu"), "1", "not of type number"),
        (("taskManager", "podTemplate", "spec", "containers", 0, "comand"), ["sh"], "comand: unknown"),
        (("taskManager", "podTemplate", "spec", "containers", 0, "command"), "sh", "not of type array"),
    ],
)
def test_mistakes_would_be_seen(cluster: dict[str, Any], path: tuple[Any, ...], value: Any, said: str) -> None:
    changed = copy.deepcopy(cluster)
    place = changed["spec"]
    for name in path[:-1]:
        place = place[name]
    place[path[-1]] = value
    [problem] = problems(changed["spec"], SPEC)
    assert said in problem


def test_workers_are_beside_the_task_manager_that_asks_for_them(cluster: dict[str, Any]) -> None:
    [pool] = cluster["spec"]["taskManager"]["podTemplate"]["spec"]["containers"]
    assert pool["command"][1:3] == ["-m", "apache_beam.runners.worker.worker_pool_main"]
    port = pool["command"][3].partition("=")[2]
    assert f"--environment_config localhost:{port}" in (ROOT / "docs" / "running.md").read_text("utf-8")
    commands = {c["name"]: c for c in cluster["spec"]["jobManager"]["podTemplate"]["spec"]["containers"]}
    # The same environment on both sides, or what was pickled here cannot be read there.
    assert commands["commands"]["image"] == pool["image"]
