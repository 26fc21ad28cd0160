"""What this process knows to be secret is masked, in whatever form others repeat it."""

from __future__ import annotations

import base64
import html
import json
import pickle
import sys
import urllib.parse
from collections.abc import Callable
from pathlib import Path

import pytest

from model import secrets
from model.secrets import Secret, is_secret_name, keep, keep_in_url, masked, masked_bytes
from tests.support import processes

ROOT = Path(__file__).resolve().parent.parent.parent
TOKEN = "tok/5f3a+81 c0=77&e2<ü"


@pytest.fixture(autouse=True)
def nothing_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(secrets, "_known", secrets._Known())


FORMS: dict[str, Callable[[str], str]] = {
    "as it is": str,
    "percent": lambda text: urllib.parse.quote(text, safe=""),
    "percent, but slashes": urllib.parse.quote,
    "percent, small letters": lambda text: urllib.parse.quote(text, safe="").replace("%2F", "%2f"),
    "percent, twice": lambda text: urllib.parse.quote(urllib.parse.quote(text, safe=""), safe=""),
    "form": urllib.parse.quote_plus,
    "JSON": lambda text: json.dumps(text)[1:-1],
    "JSON, slashes too": lambda text: json.dumps(text)[1:-1].replace("/", "\\/").replace("&", "\\u0026"),
    "HTML": html.escape,
    "HTML, numbers": lambda text: "".join(char if char.isalnum() else f"&#{ord(char)};" for char in text),
    "hexadecimal": lambda text: text.encode().hex().upper(),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_form_of_a_secret(form: str) -> None:
    written = FORMS[form](TOKEN)
    keep(TOKEN)
    assert masked(f"<{written}> and <{written}>") == "<***> and <***>"
    assert masked_bytes(f"<{written}>".encode()) == b"<***>"


@pytest.mark.parametrize("before", ["", "u:", "user:", "me:"])
@pytest.mark.parametrize("encode", [base64.b64encode, base64.urlsafe_b64encode])
def test_base64_of_a_text_with_a_secret(before: str, encode: Callable[[bytes], bytes]) -> None:
    """All but the letters that its neighbours have a part in."""
    keep("hunter2-hunter2??>>")
    coded = encode(f"{before}hunter2-hunter2??>>".encode()).decode()
    left = masked(f"Basic {coded} x").removeprefix("Basic ").removesuffix(" x")
    assert "***" in left
    assert len(left) <= len(coded) - 20


def test_the_parts_of_credentials() -> None:
    keep("Bearer tok-1234")
    keep(f"Basic {base64.b64encode(b'me:hunter2').decode()}")
    assert masked("Bearer tok-1234, tok-1234; me:hunter2, hunter2, bWU6aHVudGVyMg==") == "***, ***; ***, ***, ***"
    assert masked("a Bearer, Basic authorization of me") == "a Bearer, Basic authorization of me"


def test_what_is_no_secret_stays() -> None:
    for text in ("", "abc", "Bearer ", "Basic"):
        keep(text)
    assert masked("abc Bearer Basic x") == "abc Bearer Basic x"
    keep("longer-secret")
    keep("secret")
    assert masked("longer-secret, secretly, longer-secre") == "***, ***ly, longer-secre"


def test_of_secrets_that_replace_each_other_the_last_are_known() -> None:
    for number in range(100):
        keep(f"token-{number:03}", recent=True)
    assert masked("token-099 token-095 token-000") == "*** *** token-000"


def test_the_query_of_an_address() -> None:
    keep_in_url("https://host/v1/models/m:predict?key=k-12345&alt=json&sig=abcd")
    said = "/v1/models/m:predict?key=k-12345&alt=json&sig=abcd; k-12345; sig%3Dabcd; as json"
    assert masked(said) == "/v1/models/m:predict?***; ***; sig%3D***; as json"
    keep_in_url("http://[")


@pytest.mark.parametrize(
    ("name", "is_secret"),
    [
        *(
            (name, True)
            for name in ["password", "KAFKA_PASSWORD", "PGPASSWORD", "PREDICT_TOKEN", "accessToken", "sasl.password"]
        ),
        *((name, True) for name in ("password", "KAFKA_PASSWORD", "PGPASSWORD", "PREDICT_TOKEN", "accessToken")),
        *((name, True) for name in ("API_KEY", "x-api-key", "apiKey", "key", "Authorization", "sasl.password")),
        *((name, False) for name in ("PROJECT", "BIRTHS_SOURCE", "monkey", "author", "passengers", "signal")),
    ],
)
def test_names_of_secrets(name: str, is_secret: bool) -> None:
    assert is_secret_name(name) is is_secret


def test_a_secret_is_known_where_it_arrives() -> None:
    """As in a worker, which reads no config."""
    code = (
        "import pickle, sys; from model.secrets import masked; secret = pickle.loads(bytes.fromhex(sys.argv[1])); "
        "print(masked(secret.reveal()), secret)"
    )
    sent = pickle.dumps(Secret("tok-5f3a81c0")).hex()
    ended = processes.run([sys.executable, "-c", code, sent], cwd=ROOT, capture_output=True, text=True, check=True)
    assert ended.stdout == "*** ***\n"
