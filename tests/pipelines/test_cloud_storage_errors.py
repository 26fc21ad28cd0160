"""What is said of mistakes with Cloud Storage: one line with the key, the path and what to do, before anything runs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.servers.stand_in import stand_in
from tests.support.cloud_storage import storage_emulator, write_account
from tests.support.commands import Command, Result

_VARIABLES = ("GOOGLE_APPLICATION_CREDENTIALS", "GOOGLE_CLOUD_PROJECT", "STORAGE_EMULATOR_HOST")


@pytest.fixture(scope="module")
def emulator() -> Iterator[str]:
    with storage_emulator() as made:
        yield made.url


@pytest.fixture(autouse=True)
def nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """There are no credentials but those that a test gives."""
    for name in _VARIABLES:
        monkeypatch.delenv(name, raising=False)


def error_of(result: Result) -> str:
    """The one line that a command said."""
    assert result.code == 2, result
    assert result.out == ""
    [line] = result.errors
    return line.removeprefix("error: ")


def refusal(code: int, message: str) -> bytes:
    """An error as Cloud Storage sends it."""
    return json.dumps({"error": {"code": code, "message": message, "errors": [{"message": message}]}}).encode()


@pytest.mark.parametrize(
    ("key", "path"),
    [
        ("source.path", "gs://other/in/*.csv"),
        ("model.path", "gs://other/model"),
        ("output.path", "gs://other/out/p"),
        ("dead_letters.path", "gs://other/dead"),
    ],
)
@pytest.mark.parametrize("module", ["batch", "check"])
def test_a_bucket_that_is_not_there(
    command: Command, emulator: str, monkeypatch: pytest.MonkeyPatch, module: str, key: str, path: str
) -> None:
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", emulator)
    said = error_of(command(module, f"--set={key}={path}"))
    assert said == f"{key}: {path}: there is no bucket other; check the name, or create it"


def test_the_bucket_of_a_config_is_not_there(command: Command, emulator: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", emulator)
    said = error_of(command("batch", "--config=gs://other/mine.json"))
    assert said == "--config: gs://other/mine.json: there is no bucket other; check the name, or create it"


@pytest.mark.parametrize(
    ("code", "message", "said"),
    [
        (
            401,
            "Anonymous caller does not have storage.objects.list access",
            "gs://bucket/in.csv: Cloud Storage accepts no credentials of this process (none were found); run gcloud "
            "auth application-default login, or set GOOGLE_APPLICATION_CREDENTIALS to a key file",
        ),
        (
            403,
            "me@x.com does not have storage.objects.list access.",
            "gs://bucket/in.csv may not be listed (me@x.com does not have storage.objects.list access); give the "
            "account the role Storage Object Viewer on the bucket, or use another one",
        ),
        (
            400,
            "User project specified in the request is invalid.",
            "gs://bucket/in.csv: Cloud Storage refuses the project (User project specified in the request is invalid); "
            "check --project and GOOGLE_CLOUD_PROJECT",
        ),
        (
            400,
            "Bucket is a requester pays bucket but no user project provided.",
            "gs://bucket/in.csv: its bucket has requesters pay (Bucket is a requester pays bucket but no user project "
            "provided), which Beam cannot; copy the files to another bucket",
        ),
        (
            403,
            "The billing account for the owning project is disabled.",
            "gs://bucket/in.csv: Cloud Storage refuses it (The billing account for the owning project is disabled); "
            "enable billing for the bucket's project, or use another bucket",
        ),
        (
            503,
            "Backend Error",
            "gs://bucket/in.csv: Cloud Storage does not serve at present (Backend Error); run it again later",
        ),
    ],
)
def test_a_refusal(command: Command, monkeypatch: pytest.MonkeyPatch, code: int, message: str, said: str) -> None:
    with stand_in(lambda seen: (code, refusal(code, message))) as server:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", server.url)
        assert error_of(command("batch", "--set=source.path=gs://bucket/in.csv")) == f"source.path: {said}"


def test_a_place_to_write_names_the_role_for_that(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    with stand_in(lambda seen: (403, refusal(403, "no access"))) as server:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", server.url)
        said = error_of(command("batch", "--set=output.path=gs://bucket/p", "--set=dead_letters.path=gs://bucket/d"))
    assert said == (
        "output.path, dead_letters.path: gs://bucket/p may not be listed (no access); give the account the role "
        "Storage Object User on the bucket, or use another one"
    )


def test_a_file_that_may_be_read_and_not_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    """As of many public data sets."""
    from inference.stores.access import check_access
    from inference.stores.errors import StoreError

    def answer(seen: object) -> tuple[int, bytes]:
        path = str(getattr(seen, "path", ""))
        return (200, b'{"name": "in.csv", "size": "1"}') if "/o/in.csv" in path else (403, refusal(403, "no access"))

    with stand_in(answer) as server:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", server.url)
        check_access("gs://bucket/in.csv")
        with pytest.raises(StoreError, match="may not be listed"):
            check_access("gs://bucket/*.csv")


def test_credentials_that_have_expired(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = b'{"error": "invalid_grant", "error_description": "Token has been expired or revoked."}'
    with stand_in(lambda seen: (400, said)) as tokens, stand_in(lambda seen: (200, b"{}")) as server:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", server.url)
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(write_account(tmp_path / "key.json", tokens.url)))
        line = error_of(command("batch", "--set=source.path=gs://bucket/in.csv"))
        assert server.seen == []
    assert line.startswith(
        "source.path: gs://bucket/in.csv: Cloud Storage accepts no credentials of this process (invalid_grant: Token "
        "has been expired or revoked); run gcloud auth application-default login"
    )


def test_a_key_file_that_is_not_there(command: Command, emulator: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", emulator)
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", "/none.json")
    line = error_of(command("batch", "--set=source.path=gs://bucket/in.csv"))
    assert line.startswith(
        "source.path: gs://bucket/in.csv: Cloud Storage accepts no credentials of this process (File /none.json was not"
    )


def test_nobody_there(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", "http://127.0.0.1:9")
    assert error_of(command("batch", "--set=source.path=gs://bucket/in.csv")) == (
        "source.path: gs://bucket/in.csv: Cloud Storage cannot be reached (Connection refused); check the network, and "
        "STORAGE_EMULATOR_HOST"
    )


def test_no_answer(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """A listener that accepts no connection."""
    import socket

    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(0)
        monkeypatch.setattr("inference.stores.access.ANSWER_WITHIN_S", 0.2)
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{silent.getsockname()[1]}")
        assert error_of(command("batch", "--set=source.path=gs://bucket/in.csv")) == (
            "source.path: gs://bucket/in.csv: Cloud Storage does not answer; check the network, and "
            "STORAGE_EMULATOR_HOST"
        )
