"""Credentials of a model server: they reach it, and nobody else ever sees them."""

from __future__ import annotations

import datetime
import itertools
import json
import logging
import pickle
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import apache_beam as beam
import grpc
import pytest

from inference import Endpoint, Target
from inference.endpoint.client import Client
from inference.errors import EndpointConfigError, EndpointError
from pipelines.config.load import load
from pipelines.config.run import RunConfig
from pipelines.flows import batch as graph
from pipelines.planning.model import endpoint, make_handler
from pipelines.planning.planner import make_plan
from tests.servers.stand_in import Answer, Seen, StandIn, sevens, stand_in
from tests.support.commands import Command, Result
from tests.support.ledger import MODEL, births, books_of, write_config, write_rows

TOKEN = "tok-5f3a/81c0+77e2=9d"
KEY = "key-2b9e61f04c"
HEADERS = {"Authorization": "Bearer ${TOKEN}", "X-Api-Key": "${API_KEY}"}
SECRETS = (TOKEN, KEY)


@pytest.fixture(autouse=True)
def everything_is_logged(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setenv("TOKEN", TOKEN)
    monkeypatch.setenv("API_KEY", KEY)
    monkeypatch.setattr("model.quiet.quiet_libraries", lambda: None)
    for name in ("apache_beam", "httpx", "httpcore", "google", "google.auth", "urllib3", "grpc"):
        caplog.set_level(logging.DEBUG, name)
    caplog.set_level(logging.DEBUG)


@pytest.fixture
def shown(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> Callable[..., str]:
    """All that a run said, logged and wrote."""

    def collect(*results: Result) -> str:
        assert {"DEBUG", "INFO"} <= {record.levelname for record in caplog.records}
        said = [text for result in results for text in (result.out, result.err)]
        written = [path.read_text() for path in tmp_path.rglob("*") if path.is_file() and "out" in path.parts]
        payloads = [repr(dead_letter) for dead_letter in books_of(tmp_path).dead_letters]
        return "\n".join([*said, caplog.text, *written, *payloads])

    return collect


def leaks(text: str) -> list[str]:
    """Secrets in a text, whole or the first half of them."""
    return [secret for secret in SECRETS if secret[: len(secret) // 2] in text]


def config_of(folder: Path, url: str, rows: int = 4, **settings: Any) -> str:
    """A config against a server; credentials come from the environment."""
    file = write_rows(folder / "in.csv", "csv", births(rows, 1))
    config = Path(write_config(folder, "csv", str(file)))
    model = {"type": "endpoint", "protocol": "tf_serving_rest", "url": url, "signature_from": MODEL, "max_attempts": 2}
    config.write_text(json.dumps({**json.loads(config.read_text()), "model": {**model, **settings}}))
    return str(config)


def credentials_of(seen: Seen) -> str:
    return " and ".join(seen.headers.get(name, "none") for name in ("authorization", "x-api-key"))


def echo(status: int, form: str) -> Callable[[Seen], Answer]:
    """Repeats the credentials, in one of the forms in which servers put what they say."""

    def answer(seen: Seen) -> Answer:
        said = f"not with {credentials_of(seen)}"
        if form == "text":
            return status, said.encode()
        if form == "html":
            return status, f"<html><title>{said}</title></html>".encode()
        if form == "escaped":
            return status, json.dumps({"error": said}).replace("/", "\\/").replace("=", "\\u003d").encode()
        if form == "cut":
            # The message is cut in the middle of the token.
            return status, json.dumps({"error": "x" * (500 - 20 - len(TOKEN) // 2) + said}).encode()
        return status, json.dumps({"error": {"message": said}}).encode()

    return answer


@pytest.mark.parametrize("form", ["json", "text", "html", "escaped", "cut"])
@pytest.mark.parametrize("status", [200, 400, 401, 500])
def test_a_server_that_repeats_the_credentials(
    command: Command, tmp_path: Path, shown: Callable[..., str], status: int, form: str
) -> None:
    with stand_in(echo(status, form)) as server:
        result = command("batch", "--config", config_of(tmp_path, server.url, headers=HEADERS), "--json")
        assert {credentials_of(seen) for seen in server.seen} == {f"Bearer {TOKEN} and {KEY}"}
    # A page in place of predictions, as of a sign-in, ends the run.
    ends = status == 401 or (status == 200 and form == "html")
    assert result.code == (2 if ends else 0), result
    text = shown(result)
    assert leaks(text) == []
    messages = result.errors if ends else [dead_letter["message"] for dead_letter in books_of(tmp_path).dead_letters]
    assert len(messages) == (1 if ends else 4)
    if not (status == 200 and form == "html"):
        assert ["***" in message for message in messages] == [True] * len(messages)


class _Refusing(grpc.GenericRpcHandler):
    """A gRPC server's only method: it repeats the credentials."""

    def __init__(self, code: grpc.StatusCode) -> None:
        self.code = code
        self.seen: list[str] = []

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        sent = dict(handler_call_details.invocation_metadata)
        self.seen.append(f"{sent['authorization']} and {sent['x-api-key']}")

        def answer(request: bytes, context: grpc.ServicerContext) -> None:
            context.abort(self.code, f"not with {self.seen[-1]}")

        return grpc.unary_unary_rpc_method_handler(answer)


@pytest.mark.parametrize("code", [grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.INVALID_ARGUMENT], ids=str)
def test_a_grpc_server_that_repeats_the_credentials(
    command: Command, tmp_path: Path, shown: Callable[..., str], code: grpc.StatusCode
) -> None:
    refusing = _Refusing(code)
    server = grpc.server(ThreadPoolExecutor(2), handlers=[refusing])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        config = config_of(tmp_path, f"127.0.0.1:{port}", headers=HEADERS, protocol="tf_serving_grpc")
        result = command("batch", "--config", config)
    finally:
        server.stop(None).wait()
    assert set(refusing.seen) == {f"Bearer {TOKEN} and {KEY}"}
    assert result.code == (2 if code == grpc.StatusCode.UNAUTHENTICATED else 0), result
    text = shown(result)
    assert leaks(text) == []
    assert f"{code.name}: not with *** and ***" in text


def test_credentials_are_sent_and_shown_nowhere(command: Command, tmp_path: Path, shown: Callable[..., str]) -> None:
    with stand_in(sevens) as server:
        config = config_of(tmp_path, server.url, headers=HEADERS)
        results = [command("check", "--config", config, *more) for more in ([], ["--json"])]
        assert server.seen == []
        results += [command("batch", "--config", config, *more) for more in ([], ["--json"])]
        assert [result.code for result in results] == [0] * 4
        assert [credentials_of(seen) for seen in server.seen] == [f"Bearer {TOKEN} and {KEY}"] * 2
        assert leaks(shown(*results)) == []
        for name, thing in things(load(config)).items():
            assert leaks(f"{thing!r}\n{thing!s}") == [], name


def things(config: RunConfig) -> dict[str, Any]:
    """What code may print or log by accident."""
    plan = make_plan(config)
    model: Any = config.model
    options: dict[str, Any] = {"columns": {}, "defaults": {}, "max_rows": 5, "model_version": False}
    handler: Any = make_handler(plan.model, **options)
    client = Client(endpoint(model))
    client.close()
    pipeline = beam.Pipeline()
    graph.build(pipeline, plan, None)
    found = {
        "config": config,
        "model": model,
        "json": config.model_dump_json(),
        "plan": plan,
        "endpoint": endpoint(model),
    }
    found |= {"handler": handler, "its parts": vars(handler), "client": client, "its own": vars(client)}
    found |= {"pipeline": pipeline, "job": pipeline.to_runner_api(), "again": pickle.loads(pickle.dumps(handler))}
    return found


def test_a_key_in_the_address(command: Command, tmp_path: Path, shown: Callable[..., str]) -> None:
    """As some API gateways want it."""
    for answer, code in ((sevens, 0), (lambda seen: (404, b"nothing here"), 2), (lambda seen: (400, b"bad"), 0)):
        with stand_in(answer) as server:
            config = config_of(tmp_path, f"{server.url}/v1/models/m:predict?key={KEY}")
            results = [command("check", "--config", config), command("batch", "--config", config)]
            assert [result.code for result in results] == [0, code], results
            assert {seen.path for seen in server.seen} == {f"/v1/models/m:predict?key={KEY}"}
        assert f"{server.url}/v1/models/m:predict" in results[0].out
        assert leaks(shown(*results)) == []


# Google's credentials -----------------------------------------------------------------------------------------------


@pytest.fixture
def google(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    """A service account's file, and the server that gives its tokens, which are numbered."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    key = rsa.generate_private_key(public_exponent=65537, key_size=2048).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    numbers = itertools.count(1)

    def token(seen: Seen) -> Answer:
        given = {"access_token": f"ya29.secret-{next(numbers)}", "expires_in": 3600, "token_type": "Bearer"}
        return 200, json.dumps(given).encode()

    with stand_in(token) as server:
        account = {
            "type": "service_account",
            "project_id": "test-project",
            "private_key_id": "none",
            "private_key": key.decode(),
            "client_email": "tests@test-project.iam.gserviceaccount.com",
            "token_uri": f"{server.url}/token",
        }
        (tmp_path / "account.json").write_text(json.dumps(account))
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "account.json"))
        yield server


def test_a_google_token_is_fetched_once_and_renewed_in_time(
    command: Command,
    tmp_path: Path,
    google: StandIn,
    shown: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import google.auth._helpers as helpers

    now = helpers.utcnow
    hours = 0

    def answer(seen: Seen) -> Answer:
        nonlocal hours
        if len(server.seen) == 20:
            hours = 2
        return sevens(seen)

    def later() -> datetime.datetime:
        return now() + datetime.timedelta(hours=hours)

    monkeypatch.setattr(helpers, "utcnow", later)
    with stand_in(answer) as server:
        config = config_of(tmp_path, server.url, rows=60, credentials="google", max_in_flight=1)
        result = command("batch", "--config", config, "--set=batching.max_rows=1")
        assert result.code == 0, result
        used = [credentials_of(seen).partition(" and ")[0] for seen in server.seen]
    assert used == ["Bearer ya29.secret-1"] * 20 + ["Bearer ya29.secret-2"] * 40
    assert len(google.seen) == 2
    assert "ya29" not in shown(result)


@pytest.mark.parametrize("status", [400, 401])
def test_a_google_token_is_never_shown(
    command: Command, tmp_path: Path, google: StandIn, shown: Callable[..., str], status: int
) -> None:
    with stand_in(echo(status, "json")) as server:
        result = command("batch", "--config", config_of(tmp_path, server.url, credentials="google"))
        assert credentials_of(server.seen[0]).startswith("Bearer ya29.secret-1")
    assert result.code == (2 if status == 401 else 0), result
    assert "ya29" not in shown(result)
    assert "***" in shown(result)


def test_credentials_that_google_refuses(command: Command, tmp_path: Path, google: StandIn) -> None:
    google.answer = lambda seen: (400, b'{"error": "invalid_grant", "error_description": "assertion ey.secret"}')
    with stand_in(sevens) as server:
        result = command("batch", "--config", config_of(tmp_path, server.url, credentials="google"))
        assert server.seen == []
    assert result.code == 2, result
    assert len(result.errors) == 1
    assert "Google credentials give no token" in result.errors[0]
    assert "Traceback" not in result.err
    assert "ey.secret" not in result.err


def test_no_google_credentials(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS", raising=False)
    monkeypatch.delenv("GOOGLE_CLOUD_PROJECT", raising=False)
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
    with stand_in(sevens) as server:
        result = command("batch", "--config", config_of(tmp_path, server.url, credentials="google"))
        assert server.seen == []
    assert result.code == 2, result
    assert len(result.errors) == 1
    assert "no Google credentials found: run `gcloud auth application-default login`" in result.errors[0]
    assert "Traceback" not in result.err


def test_google_credentials_are_for_google_unless_asked(command: Command, tmp_path: Path, google: StandIn) -> None:
    with stand_in(sevens) as server:
        assert command("batch", "--config", config_of(tmp_path, server.url)).code == 0
        assert {credentials_of(seen) for seen in server.seen} == {"none and none"}
    assert google.seen == []


@pytest.mark.parametrize(
    ("protocol", "url"),
    [
        ("vertex", "http://models.example.com"),
        ("tf_serving_rest", "http://127.0.0.1.example.com:8501"),
        ("tf_serving_rest", "http://localhost.example.com"),
        ("tf_serving_grpc", "models.example.com:8500"),
        ("tf_serving_grpc", "grpc://models.example.com:8500"),
        ("ai_platform", "http://ml.googleapis.com"),
    ],
)
def test_google_credentials_need_an_encrypted_connection(google: StandIn, protocol: str, url: str) -> None:
    wanted = None if "googleapis" in url else True
    with pytest.raises(EndpointConfigError, match="unencrypted connection; use https"):
        Client(Endpoint(protocol, Target(url=url), google_credentials=wanted))
    assert google.seen == []


def test_a_header_that_cannot_be_sent_is_not_shown() -> None:
    """Libraries refuse it too, and show it."""
    from model.secrets import Secret

    for value in (f"Bearer {TOKEN}\n", f"Bearer {TOKEN} ", f"{TOKEN}\r\nX: y", f"{TOKEN}é", f"\x00{TOKEN}"):
        with pytest.raises(ValueError, match="headers.Authorization") as caught:
            Endpoint("tf_serving_rest", Target(url="http://127.0.0.1:1"), headers={"Authorization": Secret(value)})
        assert leaks(str(caught.value)) == []
    assert not issubclass(EndpointError, ValueError)
