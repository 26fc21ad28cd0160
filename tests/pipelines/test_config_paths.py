"""Every key of a config that holds a path: with `~`, relative for workers elsewhere, and on stores."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import reduce
from pathlib import Path
from typing import Annotated, Any, get_args

import pytest
from pydantic import TypeAdapter
from pydantic.fields import FieldInfo

from pipelines.config.absolute import absolute
from pipelines.config.base import Strict
from pipelines.config.errors import ConfigError
from pipelines.config.load import load
from pipelines.config.paths import mark_of, paths_in, with_paths
from pipelines.config.registry import TYPES
from pipelines.config.run import RunConfig
from tests.support.commands import Command

NO_PATHS = {
    "$schema", "accelerator_type", "bootstrap_servers", "cluster_by", "column", "column_names", "columns", "delimiter",
    "encoding", "event_time", "family", "filter", "group", "instance", "key", "key_attribute", "key_field",
    "key_input", "key_output", "label",
    "location", "machine_type", "message", "model", "name", "null_values", "ordering_key", "permissions", "project",
    "query", "quote", "region", "resource", "row_key", "runtime_version", "select", "service_account", "signature",
    "start", "subscription", "table", "temporary_dataset", "timestamp_attribute", "topic", "url", "username", "version",
}  # fmt: skip
"""Keys that hold texts other than paths. A new key goes here, or gets a type of pipelines/config/paths.py."""


def classes(kind: type[Strict]) -> Iterator[type[Strict]]:
    """The class of an object, and those of the objects in it."""
    yield kind
    for field in kind.model_fields.values():
        for part in [field.annotation, *get_args(field.annotation)]:
            if isinstance(part, type) and issubclass(part, Strict):
                yield from classes(part)


KINDS = [kind for part in TYPES.values() for kind in part.values()]
FIELDS = {
    (inner.__name__, field.alias or name): field
    for kind in (RunConfig, *KINDS)
    for inner in classes(kind)
    for name, field in inner.model_fields.items()
}
PATHS = {key: field for key, field in FIELDS.items() if mark_of(field) is not None}


def adapter(field: FieldInfo) -> TypeAdapter[Any]:
    """Validates a value of a key alone."""
    return TypeAdapter(reduce(lambda type, data: Annotated[type, data], field.metadata, field.annotation))


def holds_text(annotation: Any) -> bool:
    if annotation is str:
        return True
    inner = get_args(annotation)
    is_list_or_union = getattr(annotation, "__origin__", list) is not dict
    return is_list_or_union and any(holds_text(each) for each in inner if not isinstance(each, str))


def test_every_text_of_a_config_is_a_path_or_known_not_to_be() -> None:
    texts = {key for key, field in FIELDS.items() if holds_text(field.annotation)}
    assert {name for kind, name in texts - set(PATHS)} == NO_PATHS
    assert set(PATHS) <= texts


def test_the_paths_of_a_config() -> None:
    assert {name for _, name in PATHS} == {
        "path", "folder", "schema", "descriptor", "signature_from", "staging", "op_libraries", "ca_file",
        "certificate_file", "key_file",
    }  # fmt: skip


@pytest.mark.parametrize("key", PATHS, ids=".".join)
def test_a_path_may_begin_with_the_home_folder(key: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    field = PATHS[key]
    value = ["~/x"] if str(field.annotation).startswith("list") else "~/x"
    assert adapter(field).validate_python(value) == (["/home/me/x"] if isinstance(value, list) else "/home/me/x")


@pytest.mark.parametrize("key", PATHS, ids=".".join)
def test_a_path_is_on_a_store_or_must_be_local(key: tuple[str, str]) -> None:
    field = PATHS[key]
    mark = mark_of(field)
    assert mark is not None
    value = ["s3://bucket/x"] if str(field.annotation).startswith("list") else "s3://bucket/x"
    if mark.is_local:
        with pytest.raises(ValueError, match="it must be a local file"):
            adapter(field).validate_python(value)
    else:
        assert adapter(field).validate_python(value) == value


def test_a_local_path_on_a_store_is_one_line(command: Command, tmp_path: Path) -> None:
    content = json.loads(Path("configs/natality-kafka.json").read_text())
    security = {"protocol": "ssl", "ca_file": "gs://bucket/ca.pem"}
    content["source"] |= {"bootstrap_servers": "127.0.0.1:1", "security": security}
    (tmp_path / "c.json").write_text(json.dumps(content))
    result = command("check", "--config", str(tmp_path / "c.json"))
    assert result.code == 2
    [line] = result.err.splitlines()
    assert "source.security.ca_file: " in line
    assert "it must be a local file" in line


def instances() -> Iterator[tuple[str, Strict, str]]:
    """An object of each class that has a path, with one of them set: (its part of the config, the object, the key)."""
    for part, kinds in TYPES.items():
        for kind in kinds.values():
            for inner in classes(kind):
                for name, field in inner.model_fields.items():
                    if mark_of(field) is None:
                        continue
                    value: Any = ["a", "b"] if str(field.annotation).startswith("list") else "a"
                    made = inner.model_construct(**dict.fromkeys(inner.model_fields) | {name: value})
                    if inner is not kind:
                        holder = next(n for n, f in kind.model_fields.items() if f.annotation is inner)
                        made = kind.model_construct(**dict.fromkeys(kind.model_fields) | {holder: made})
                    yield part, made, field.alias or name


@pytest.mark.parametrize(("part", "made", "key"), instances(), ids=lambda value: str(value)[:40])
def test_a_relative_path_is_completed_for_workers_elsewhere(part: str, made: Strict, key: str) -> None:
    config = load("configs/natality.json").model_copy(update={part: made})
    found = dict(paths_in(with_paths(config, absolute)))
    completed = [path for name, path in found.items() if name.startswith(f"{part}.") and name.endswith(f".{key}")]
    assert completed
    assert all(path.startswith(f"{Path.cwd()}/") for path in found.values())


def test_places_that_a_config_does_not_name_are_completed_too(tmp_path: Path) -> None:
    content = json.loads(Path("configs/natality.json").read_text())
    content["output"] = {"type": "bigquery", "table": "p.d.t"}
    del content["dead_letters"]["path"]
    (tmp_path / "c.json").write_text(json.dumps(content))
    config = load(str(tmp_path / "c.json"), absolute=True)
    assert config.output_path == f"{Path.cwd()}/out/p.d.t"
    assert config.dead_letters_path == f"{Path.cwd()}/out/p.d.t-dead_letters"
    stream = json.loads(Path("configs/natality-kafka.json").read_text())
    stream["source"]["bootstrap_servers"] = "127.0.0.1:1"
    stream["output"] = {"type": "console"}
    stream["dead_letters"] = {}
    (tmp_path / "c.json").write_text(json.dumps(stream))
    assert load(str(tmp_path / "c.json"), absolute=True).dead_letters_path == f"{Path.cwd()}/out/dead_letters"


def test_a_config_that_is_not_there_is_named_with_its_home_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    with pytest.raises(ConfigError, match="/home/me/none.json: no such file"):
        load("~/none.json")
