"""Mistakes about a model server: one clear line each, before anything runs; and a server that refuses the caller."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.servers.stand_in import Answer, Seen, sevens, stand_in
from tests.support import ledger
from tests.support.commands import Command, Result
from tests.support.ledger import (
    DEFAULTS,
    KEY,
    MODEL,
    TEXTS,
    assert_balanced,
    births,
    books_of,
    shards,
    write_config,
    write_rows,
)
from tests.support.serving_process import Serving, serving


@pytest.fixture(scope="module")
def server() -> Iterator[Serving]:
    with serving(MODEL) as server:
        yield server


@pytest.fixture(scope="module")
def nobody() -> Iterator[str]:
    """A port on which nothing listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{taken.getsockname()[1]}"


REST, GRPC, FROM = {"url": "{rest}"}, {"protocol": "tf_serving_grpc"}, {"signature_from": MODEL}
VERTEX = {"protocol": "vertex", **FROM}

# What is wrong -> the endpoint of the config (of tf_serving_rest, unless it says so), and words of the one line.
WRONG: dict[str, tuple[dict[str, Any], list[str]]] = {
    "nothing listens": ({"url": "http://{nobody}"}, ["model.url", "{nobody}", "refused", "start the server"]),
    "nothing listens, signature known": ({"url": "http://{nobody}", **FROM}, ["model.url", "{nobody}", "refused"]),
    "nothing listens, gRPC": ({**GRPC, "url": "{nobody}"}, ["model.url", "{nobody}", "refused"]),
    "unknown host": ({"url": "http://no-such-host.invalid:8501"}, ["model.url", "no host no-such-host.invalid"]),
    "no url": ({}, ["model", "url is missing"]),
    "no resource": (VERTEX, ["model", "resource", "missing"]),
    "another scheme": ({"url": "ftp://127.0.0.1:1"}, ["model.url", "ftp://", "http://HOST:PORT"]),
    "no scheme": ({"url": "127.0.0.1:1"}, ["model.url", "no scheme", "http://HOST:PORT"]),
    "another scheme, gRPC": ({**GRPC, **FROM, "url": "ftp://127.0.0.1:1"}, ["model.url", "ftp://", "grpc://"]),
    "a path, gRPC": ({**GRPC, **FROM, "url": "127.0.0.1:1/v1"}, ["model.url", "path"]),
    "no port, gRPC": ({**GRPC, **FROM, "url": "127.0.0.1"}, ["model.url", "port is missing"]),
    "credentials in the url": ({"url": "http://me:hunter2@127.0.0.1:1"}, ["model.url", "credentials", "header"]),
    "credentials in the url, gRPC": ({**GRPC, "url": "me:hunter2@127.0.0.1:1"}, ["model.url", "credentials"]),
    "unknown protocol": (
        {**REST, "protocol": "tf_serving_rst"},
        ["model.protocol", "tf_serving_rst", "did you mean 'tf_serving_rest'"],
    ),
    "no protocol": ({**REST, "protocol": None}, ["model.protocol", "missing"]),
    "unknown type": ({**REST, "type": "endpiont"}, ["model.type", "endpiont", "did you mean 'endpoint'"]),
    "unknown signature": (
        {**REST, "signature": "serving_defualt"},
        ["model", "serving_defualt", "did you mean 'serving_default'"],
    ),
    "unknown signature, gRPC": (
        {**GRPC, "url": "{grpc}", "signature": "serving_defualt"},
        ["model", "serving_defualt", "did you mean 'serving_default'"],
    ),
    "unknown signature of the SavedModel": (
        {**REST, **FROM, "signature": "serving_defualt"},
        ["model.signature_from: ", "serving_defualt", "did you mean 'serving_default'"],
    ),
    "no such SavedModel": ({**REST, "signature_from": "/no/such"}, ["model.signature_from: ", "/no/such"]),
    "unknown model": ({**REST, "model": "births"}, ["404", "births", "check the address, the model's name"]),
    "unknown model, kserve_v2": ({**REST, "protocol": "kserve_v2", "model": "births"}, ["404", "births"]),
    "unknown model, gRPC": ({**GRPC, "url": "{grpc}", "model": "births"}, ["NOT_FOUND", "births"]),
    "unknown version": ({**REST, "version": 9}, ["404", "9"]),
    "a version that is no number": ({**REST, "version": "v1"}, ["model.version", "v1", "not a number"]),
    "a version that is no number, gRPC": ({**GRPC, "url": "{grpc}", "version": "v1"}, ["model.version", "v1"]),
    "kserve_v1 cannot tell": ({**REST, "protocol": "kserve_v1"}, ["kserve_v1", "model.signature_from"]),
    "ai_platform cannot tell": ({**REST, "protocol": "ai_platform"}, ["ai_platform", "model.signature_from"]),
    "inputs and signature_from": (
        {**REST, **FROM, "inputs": {"x": "float32"}},
        ["inputs and signature_from exclude each other"],
    ),
    "outputs alone": ({**REST, "outputs": {"x": "float32"}}, ["outputs", "inputs"]),
    "a dtype misspelt": (
        {**REST, "inputs": {**dict.fromkeys(TEXTS, "string"), "plurality": "flaot32"}},
        ["model.inputs.plurality", "flaot32", "did you mean 'float32'"],
    ),
    "a dtype of an output misspelt": (
        {**REST, "inputs": dict.fromkeys(TEXTS, "string"), "outputs": {"y": {"dtype": "double", "shape": []}}},
        ["model.outputs.y", "double"],
    ),
    "an input without a name": ({**REST, "inputs": [{"dtype": "string"}]}, ["model.inputs", "name"]),
    "an input twice": (
        {**REST, "inputs": [{"name": "note", "dtype": "string"}, {"name": "note", "dtype": "float32"}]},
        ["model.inputs", "'note'", "twice"],
    ),
    "an input without a column": ({**REST, "inputs": {"mother_agee": "float32"}}, ["mother_agee", "source.columns"]),
    "body of another protocol": ({**REST, "body": "binary"}, ["body", "columns or rows"]),
    "body misspelt": ({**REST, "body": "colums"}, ["model.body", "did you mean 'columns'"]),
    "body of a protocol with one": ({**REST, "protocol": "kserve_v1", "body": "rows"}, ["body", "leave it out"]),
    "version and label": ({**REST, "version": "1", "label": "stable"}, ["version and label exclude each other"]),
    "a resource malformed": (
        {**VERTEX, "resource": "projects/p/endpoints/e"},
        ["model.resource", "projects/p/endpoints/e", "projects/P/locations/L/endpoints/E"],
    ),
    "a resource where there are none": ({**REST, "resource": "projects/p/models/m"}, ["resource", "has none"]),
    "no file of certificates": ({**REST, **FROM, "ca_file": "/no/such.pem"}, ["model.ca_file", "/no/such.pem"]),
    "no certificates in the file": ({**REST, "ca_file": "{tmp}/births.csv"}, ["model.ca_file", "births.csv", "PEM"]),
    "no certificates, gRPC": ({**GRPC, **FROM, "url": "{grpc}", "ca_file": "/no/such.pem"}, ["model.ca_file"]),
    "a header with a line break": (
        {**REST, **FROM, "headers": {"Authorization": "Bearer hunter2\n"}},
        ["model.headers.Authorization", "line break"],
    ),
    "a header with an empty token": (
        {**REST, **FROM, "headers": {"Authorization": "Bearer ${NO_TOKEN:-}"}},
        ["model.headers.Authorization", "empty"],
    ),
    "a header that is not ASCII": (
        {**GRPC, **FROM, "url": "{grpc}", "headers": {"x-key": "hunter2é"}},
        ["model.headers.x-key", "ASCII"],
    ),
    "a header's name": ({**REST, **FROM, "headers": {"Authorization:": "hunter2"}}, ["model.headers", "name"]),
    "a header that is no text": ({**REST, "headers": {"x-key": {"hunter2": 1}}}, ["model.headers.x-key", "string"]),
    "a number out of range": ({**REST, "max_in_flight": 0}, ["model.max_in_flight", "0"]),
    "an unknown key": ({**REST, "signature_form": "x"}, ["model.signature_form", "did you mean 'signature_from'"]),
}


@pytest.mark.parametrize("what", WRONG)
def test_one_line_says_what_is_wrong(command: Command, tmp_path: Path, server: Serving, nobody: str, what: str) -> None:
    settings, words = WRONG[what]
    file = write_rows(tmp_path / "births.csv", "csv", births(5, 1))
    config = Path(write_config(tmp_path, "csv", str(file)))
    model = {"type": "endpoint", "protocol": "tf_serving_rest", **settings}
    model = {name: value for name, value in model.items() if value is not None}
    text = json.dumps([model, words])
    for name, value in (("rest", server.rest), ("grpc", server.grpc), ("nobody", nobody), ("tmp", str(tmp_path))):
        text = text.replace(f"{{{name}}}", value)
    model, words = json.loads(text)
    config.write_text(json.dumps({**json.loads(config.read_text()), "model": model}))
    before = sorted(tmp_path.rglob("*"))
    for module in ("check", "batch"):
        result = command(module, "--config", str(config))
        assert result.code == 2, result
        assert result.out == ""
        assert len(result.errors) == 1, result
        assert result.err.splitlines() == result.errors
        assert [word for word in words if word not in result.errors[0]] == []
        assert "hunter2" not in result.err
    assert sorted(tmp_path.rglob("*")) == before


def test_all_mistakes_at_once(command: Command, tmp_path: Path, nobody: str) -> None:
    """Those of the server, its certificates, the key and the output."""
    file = write_rows(tmp_path / "births.csv", "csv", births(5, 1))
    config = write_config(tmp_path, "csv", str(file), source={"key": "kee"}, output={"columns": ["predicted"]})
    model = {"type": "endpoint", "protocol": "tf_serving_rest", "url": f"http://{nobody}", "ca_file": "/no", **FROM}
    result = command("batch", "--config", config, f"--set=model={json.dumps(model)}")
    assert result.code == 2
    found = [line.split(":")[1].strip() for line in result.errors]
    assert sorted(found) == ["model.ca_file", "model.url", "output.columns", "source.key"], result


# A server that refuses the caller -----------------------------------------------------------------------------------


def refusing(status: int, after: int) -> Callable[[Seen], Answer]:
    """Answers so many requests well."""
    left = iter(range(after))

    def answer(seen: Seen) -> Answer:
        return sevens(seen) if next(left, None) is not None else (status, b'{"error": "not for you"}')

    return answer


def refused(command: Command, folder: Path, model: dict[str, Any], module: str = "batch") -> Result:
    """Runs a config that must not succeed, over an earlier output."""
    config = write_config(folder, "csv", str(folder / "in.csv"), batching={"max_rows": 20})
    result = command(module, "--config", config, f"--set=model={json.dumps(model)}")
    assert result.code == 2, result
    assert result.out == ""
    assert len(result.errors) == 1, result
    assert "nothing was published" in result.errors[0]
    assert "Traceback" not in result.err
    assert [line for line in result.err.splitlines() if "ERROR" in line or "Error" in line] == []
    return result


@pytest.mark.parametrize(
    ("status", "after", "advice"),
    [
        (401, 0, "check the credentials"),
        (401, 5, "check the credentials"),
        (403, 0, "permissions"),
        (404, 0, "check the address, the model's name and its version"),
        (404, 30, "check the address, the model's name and its version"),
    ],
)
def test_a_refused_caller_ends_the_run(
    command: Command,
    tmp_path: Path,
    status: int,
    after: int,
    advice: str,
    small_pieces: Callable[[int, int], None],
) -> None:
    write_rows(tmp_path / "in.csv", "csv", births(2_000, 2))
    ledger.plant(tmp_path / "out" / "p", {"-00000-of-00001.csv": "earlier"})
    ledger.plant(tmp_path / "out" / "dead", {"-00000-of-00001.jsonl": "earlier too"})
    with stand_in(refusing(status, after)) as server:
        model = {"type": "endpoint", "protocol": "tf_serving_rest", "url": server.url, **FROM}
        result = refused(command, tmp_path, model)
        assert after < len(server.seen) < after + 40
    for words in (f"tf_serving_rest:{server.url}/default", f"{status}: not for you", advice):
        assert words in result.errors[0]
    found = {path.name: path.read_text() for path in (tmp_path / "out").iterdir() if path.name[0] != "."}
    assert found == {"p-00000-of-00001.csv": "earlier", "dead-00000-of-00001.jsonl": "earlier too"}


@pytest.mark.parametrize("protocol", ["tf_serving_rest", "tf_serving_grpc", "kserve_v2", "vertex"])
def test_a_model_that_the_server_does_not_know(
    command: Command, tmp_path: Path, server: Serving, protocol: str
) -> None:
    """The signature is known here, so it shows when the first request is answered."""
    write_rows(tmp_path / "in.csv", "csv", births(100, 2))
    url = server.grpc if protocol == "tf_serving_grpc" else server.rest
    url += "/elsewhere" if protocol == "vertex" else ""
    model = {"type": "endpoint", "protocol": protocol, "url": url, "model": "births", **FROM}
    result = refused(command, tmp_path, model)
    assert ("NOT_FOUND" if protocol == "tf_serving_grpc" else "404") in result.errors[0]
    assert "check the address" in result.errors[0]
    assert shards(tmp_path / "out" / "p") == []


def test_a_refused_replay_leaves_the_dead_letters(command: Command, tmp_path: Path) -> None:
    rows = births(60, 3)
    bad = [{**row, "is_male": None} for row in rows[:4]]
    write_rows(tmp_path / "in.csv", "csv", [*bad, *rows[4:]])
    assert command("batch", "--config", write_config(tmp_path, "csv", str(tmp_path / "in.csv"))).code == 0
    with stand_in(refusing(403, 0)) as server:
        model = {"type": "endpoint", "protocol": "tf_serving_rest", "url": server.url, **FROM}
        mended = {"source": {"defaults": {**DEFAULTS, "is_male": "True"}}}
        config = write_config(tmp_path, "csv", str(tmp_path / "in.csv"), **mended)
        result = command("replay", "--config", config, f"--set=model={json.dumps(model)}")
    assert result.code == 2, result
    assert len(result.errors) == 1
    assert "403: not for you" in result.errors[0]
    assert_balanced(books_of(tmp_path), rows[4:], {row[KEY]: None for row in bad})
