"""Runs on S3, held against the same runs on local files; files of any size; what is said of mistakes."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pipelines import storage
from tests.servers.stand_in import Answer, Seen, stand_in
from tests.support import ledger, processes
from tests.support.commands import ROOT, Command, Result
from tests.support.ledger import births, write_config, write_rows
from tests.support.s3 import S3Emulator, s3

_EMPTY = (
    b'<?xml version="1.0"?><ListBucketResult><KeyCount>0</KeyCount><IsTruncated>false</IsTruncated></ListBucketResult>'
)
_OF_AN_OBJECT = {"ETag": "e", "Last-Modified": "Thu, 01 Jan 2026 00:00:00 GMT"}


@pytest.fixture(scope="module")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Emulator]:
    with s3(tmp_path_factory.mktemp("home")) as made:
        yield made


@pytest.fixture
def bucket(emulator: S3Emulator, monkeypatch: pytest.MonkeyPatch) -> S3Emulator:
    """A bucket that is empty, and its environment that of this process."""
    for name in emulator.names():
        emulator.delete(name)
    for name, value in emulator.env.items():
        if name.startswith("AWS_"):
            monkeypatch.setenv(name, value)
    return emulator


@pytest.mark.parametrize(("format", "output_format"), [("csv", "csv"), ("parquet", "parquet"), ("json", "json")])
def test_a_run_on_s3_writes_what_a_local_run_writes(
    command: Command, bucket: S3Emulator, tmp_path: Path, format: str, output_format: str
) -> None:
    rows = births(600, 3)
    for row in rows[::50]:
        row["is_male"] = None
    extension = ledger.EXTENSIONS[format]
    files = [write_rows(tmp_path / "in" / f"{n}.{extension}", format, rows[n::2]) for n in (0, 1)]
    config = write_config(tmp_path, format, str(tmp_path / "in" / "*"), output_format)
    result = command("batch", "--config", config, "--json")
    assert result.code == 0, result
    for file in files:
        bucket.put(f"in/{file.name}", file.read_bytes())
    bucket.put_folder("model/v1", Path(ledger.MODEL))
    content = json.loads(Path(config).read_text())
    content["source"]["path"] = "s3://bucket/in/*"
    content["model"] = {"path": "s3://bucket/model", "version": "latest"}
    content["output"]["path"], content["dead_letters"]["path"] = "s3://bucket/out/p", "s3://bucket/out/dead"
    bucket.put("config.json", json.dumps(content).encode())
    on_s3 = command("batch", "--config", "s3://bucket/config.json", "--json")
    assert on_s3.code == 0, on_s3
    counts = ("rows_read", "rows_written", "rows_dead_lettered")
    assert [on_s3.summary[name] for name in counts] == [result.summary[name] for name in counts] == [600, 588, 12]
    bucket.download("out/", tmp_path / "got")
    found = ledger.read_books(tmp_path / "got" / "out" / "p", tmp_path / "got" / "out" / "dead")
    expected = ledger.read_books(tmp_path / "out" / "p", tmp_path / "out" / "dead")
    assert sorted(map(repr, found.output)) == sorted(map(repr, expected.output))
    assert len(found.output) == 588
    assert found.letter_keys == expected.letter_keys
    assert [name for name in bucket.names("out/") if "/." in name] == [
        "out/.dead.manifest.json", "out/.p.manifest.json",
    ]  # fmt: skip
    assert bucket.unfinished() == []


def test_an_output_without_rows(command: Command, bucket: S3Emulator, tmp_path: Path) -> None:
    """S3 refuses an upload of no parts."""
    bucket.put("in.csv", ledger.HEADER + b"\n")
    config = write_config(
        tmp_path,
        "csv",
        "s3://bucket/in.csv",
        "json",
        output={"path": "s3://bucket/p"},
        dead_letters={"path": "s3://bucket/d"},
    )
    result = command("batch", "--config", config, "--json")
    assert result.code == 0, result
    assert bucket.names("p-") == ["p-00000-of-00001.jsonl"]
    assert bucket.read("p-00000-of-00001.jsonl") == b""


@pytest.mark.parametrize("size", [0, 1, 16 << 20, (16 << 20) + 1, 40_000_000])
def test_a_file_of_any_size(bucket: S3Emulator, size: int) -> None:
    content = bytes(range(250)) * (size // 250 + 1)
    content = content[:size]
    file = storage.open_output("s3://bucket/large")
    for start in range(0, size, 3_000_001):
        file.write(content[start : start + 3_000_001])
    assert storage.close_durably(file) == size
    assert bucket.read("large") == content
    assert bucket.unfinished() == []
    middle = size // 2
    assert storage.read_range("s3://bucket/large", middle, middle + 100_000) == content[middle : middle + 100_000]


def test_the_parts_of_an_upload_that_fails_are_removed(bucket: S3Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    from inference.stores.s3 import client_for

    storage.write_whole("s3://bucket/other", b"1")
    client = client_for(None)
    before, calls = client.upload_part, list[int]()

    def fails_later(**named: object) -> object:
        calls.append(1)
        if len(calls) == 2:
            raise ConnectionError("cut")
        return before(**named)

    monkeypatch.setattr(client, "upload_part", fails_later)
    file = storage.open_output("s3://bucket/large")
    with pytest.raises(Exception, match="cut"):
        file.write(bytes(40 << 20))
    with pytest.raises(Exception, match="cut"):
        file.close()
    assert len(calls) == 2
    assert bucket.unfinished() == []
    assert bucket.names("large") == []


def test_init_and_check_on_s3(command: Command, bucket: S3Emulator, tmp_path: Path) -> None:
    bucket.put("in.csv", (ROOT / "data" / "births-nc-2001.csv").read_bytes())
    bucket.put_folder("model", Path(ledger.MODEL))
    wrote = ("--model=s3://bucket/model", "--source=s3://bucket/in.csv", "--output=s3://bucket/mine.json")
    result = command("init", *wrote, "--force")
    assert result.code == 0, result
    assert json.loads(bucket.read("mine.json"))["source"]["path"] == "s3://bucket/in.csv"
    again = command("init", *wrote)
    assert (again.code, again.errors) == (
        2,
        ["error: s3://bucket/mine.json exists; choose another --output, or --force to replace it"],
    )
    result = command(
        "check", "--config=s3://bucket/mine.json", f"--set=source.defaults={json.dumps(ledger.DEFAULTS)}", "--json"
    )
    assert result.code == 0, result
    assert json.loads(result.out)["model"] == "s3://bucket/model"


def error_of(result: Result) -> str:
    """The one line that a command said."""
    assert result.code == 2, result
    assert result.out == ""
    [line] = result.err.splitlines()
    return line.removeprefix("error: ")


ON_S3 = (
    "--set=source.path=s3://bucket/in.csv",
    "--set=output.path=s3://bucket/p",
    "--set=dead_letters.path=s3://bucket/d",
)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--set=source.path=s3://bucket/none.csv"], "source.path: nothing matches s3://bucket/none.csv; check"),
        (["--set=source.path=s3://other/*.csv"], "source.path: s3://other/*.csv: there is no bucket other; check"),
        (["--set=model.path=s3://bucket/none"], "model: no SavedModel at s3://bucket/none: "),
        (["--set=model.path=s3://other/m"], "model.path: s3://other/m: there is no bucket other; check the name"),
        (["--set=output.path=s3://other/p"], "output.path: s3://other/p: there is no bucket other; check"),
        (["--set=dead_letters.path=s3://other/d"], "dead_letters.path: s3://other/d: there is no bucket other; check"),
        (["--config=s3://bucket/none.json"], "s3://bucket/none.json: no such file"),
        (["--config=s3://other/none.json"], "--config: s3://other/none.json: there is no bucket other; check"),
        (["--set=source.path=s3://"], "source.path: s3://: names no bucket; give s3://<bucket>/<name>"),
        (["--set=source.path=S3://bucket/a"], "source.path: S3://bucket/a: write s3:// in small letters"),
        (["--set=source.path=ftp://host/a"], "source.path: ftp://host/a: there is no file system for ftp://; give"),
    ],
)
def test_a_wrong_path_is_one_line(command: Command, bucket: S3Emulator, arguments: list[str], said: str) -> None:
    bucket.put("in.csv", (ROOT / "data" / "births-nc-2001.csv").read_bytes())
    assert error_of(command("batch", *ON_S3, *arguments)).startswith(said)
    assert bucket.names() == ["in.csv"]


def refusing(code: str, status: int, message: str) -> Callable[[Seen], Answer]:
    """Answers every request with an error of S3's."""
    body = f'<?xml version="1.0"?><Error><Code>{code}</Code><Message>{message}</Message></Error>'.encode()
    return lambda seen: (status, body)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (refusing("AccessDenied", 403, "Access Denied"), "may not be listed (Access Denied); give the account s3:"),
        (refusing("InvalidAccessKeyId", 403, "No such key"), "S3 accepts no credentials of this process (No such key)"),
        (refusing("ExpiredToken", 400, "Expired"), "S3 accepts no credentials of this process (Expired); set AWS_PROF"),
        (refusing("AuthorizationHeaderMalformed", 400, "Use eu-west-1"), "its bucket is in another region (Use eu-w"),
        (refusing("SlowDown", 503, "Reduce"), "S3 does not serve at present (Reduce); run it again later"),
    ],
)
def test_a_refusal_is_one_line(
    command: Command, bucket: S3Emulator, answer: Callable[[Seen], Answer], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with stand_in(answer) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
        line = error_of(command("batch", "--set=source.path=s3://bucket/in.csv"))
    assert line.startswith("source.path: s3://bucket/in.csv")
    assert said in line


def test_what_may_be_listed_and_not_read_is_one_line(
    command: Command, bucket: S3Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    listing = _EMPTY.replace(
        b"<KeyCount>0</KeyCount>",
        b"<KeyCount>1</KeyCount><Contents><Key>in.csv</Key><Size>9</Size><ETag>e</ETag>"
        b"<LastModified>2026-01-01T00:00:00.000Z</LastModified></Contents>",
    )
    with stand_in(lambda seen: (200, listing) if "list-type" in seen.path else (403, b"")) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
        line = error_of(command("batch", "--set=source.path=s3://bucket/*.csv"))
    assert line.startswith("source.path: s3://bucket/in.csv may not be read (")
    assert "give the account s3:GetObject and s3:ListBucket" in line


@pytest.mark.parametrize(("refused", "deed"), [("PUT", "written"), ("POST", "deleted")])
def test_a_place_that_may_be_listed_and_not_written_is_one_line(
    command: Command, bucket: S3Emulator, monkeypatch: pytest.MonkeyPatch, refused: str, deed: str
) -> None:
    """Before anything runs, also if files could be written there, but not deleted."""
    denied = refusing("AccessDenied", 403, "Access Denied")

    def answer(seen: Seen) -> Answer:
        if seen.method == refused:
            return denied(seen)
        return (200, _EMPTY) if "list-type" in seen.path else (200, b"", _OF_AN_OBJECT)

    with stand_in(answer) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
        line = error_of(command("batch", "--set=output.path=s3://bucket/out/p"))
    assert line.startswith("output.path: s3://bucket/out/.p.lock-")
    assert f"may not be {deed} (Access Denied); give the account s3:PutObject, " in line


def test_no_credentials_are_one_line_for_all_paths(
    command: Command, bucket: S3Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    line = error_of(command("batch", *ON_S3))
    assert line.startswith("source.path, output.path, dead_letters.path: s3://bucket/in.csv: S3 accepts no credentials")
    assert line.endswith("set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or run aws sso login")


def test_nobody_there_is_one_line(command: Command, bucket: S3Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    line = error_of(command("batch", *ON_S3))
    assert line.startswith("source.path, output.path, dead_letters.path: s3://bucket/in.csv: S3 cannot be reached (")
    assert line.endswith("check the network, and AWS_ENDPOINT_URL, AWS_REGION")


@pytest.mark.parametrize(
    ("path", "package", "extra"),
    [("s3://bucket/in.csv", "boto3", "aws"), ("azfs://account/container/in.csv", "azure.storage.blob", "azure")],
)
def test_a_missing_extra_is_one_line(
    command: Command, monkeypatch: pytest.MonkeyPatch, path: str, package: str, extra: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)  # type: ignore[arg-type]
    monkeypatch.setattr("inference.stores.file_systems._ready", set())
    line = error_of(command("batch", f"--set=source.path={path}"))
    scheme = path.partition("://")[0]
    assert line == (
        f"source.path: {path}: {scheme}:// needs packages that are not installed: pip install "
        f"'beam-tf-predict[{extra}]'"
    )


def test_options_that_workers_would_not_get(command: Command, bucket: S3Emulator) -> None:
    bucket.put("in.csv", (ROOT / "data" / "births-nc-2001.csv").read_bytes())
    given = (f"--s3_endpoint_url={bucket.url}", "--direct_running_mode=multi_processing", "--direct_num_workers=2")
    result = command("batch", *ON_S3, *given)
    assert result.code == 2, result
    [line] = result.errors
    assert line.startswith("error: --s3_endpoint_url: does not reach workers that are processes; set boto3's variable")
    assert bucket.names() == ["in.csv"]


def test_workers_that_are_processes(bucket: S3Emulator) -> None:
    """They have the variables of the command."""
    bucket.put("in.csv", (ROOT / "data" / "births-nc-2001.csv").read_bytes())
    given = (*ON_S3, "--direct_running_mode=multi_processing", "--direct_num_workers=2", "--json")
    done = processes.run(
        [sys.executable, "-m", "pipelines.batch", *given], cwd=ROOT, env=bucket.env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["rows_written"] == 1450


def test_options_of_beam_say_where_and_as_whom(
    command: Command, bucket: S3Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    bucket.put("in.csv", (ROOT / "data" / "births-nc-2001.csv").read_bytes())
    given = (f"--s3_endpoint_url={bucket.url}", "--s3_access_key_id=me", "--s3_secret_access_key", "keep-this-quiet")
    result = command("batch", *ON_S3, *given, "--json")
    assert result.code == 0, result
    assert result.summary["rows_written"] == 1450
    assert "keep-this-quiet" not in result.out + result.err
    assert bucket.names("p-") == ["p-00000-of-00001.csv"]
    # The next command in this process has no options any more.
    line = error_of(command("batch", "--set=source.path=s3://bucket/in.csv", "--s3_endpoint_url=http://127.0.0.1:9"))
    assert "S3 accepts no credentials" in line
