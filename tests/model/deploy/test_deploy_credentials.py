"""Credentials of the command that puts a model online: they are sent, refreshed, and never shown."""

from __future__ import annotations

import datetime
import ipaddress
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from model.cloud.credentials import GoogleAuth
from tests.model.deploy.cloud import Cloud


def test_no_credentials(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STORAGE_EMULATOR_HOST")
    for arguments in (cloud.arguments("vertex")[:-2], cloud.arguments("vertex")):
        result = cloud.main(arguments)
        assert result.code == 2
        assert result.err.count("error: ") == 1
        assert result.err.startswith("error: no Google credentials that can be used (DefaultCredentialsError): run ")


SECRETS = ("ya29.first-secret", "ya29.second-secret")


class _Tokens(BaseHTTPRequestHandler):
    """Gives the secrets one after the other."""

    given = 0

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        token = SECRETS[min(_Tokens.given, len(SECRETS) - 1)]
        _Tokens.given += 1
        body = json.dumps({"access_token": token, "expires_in": 3600, "token_type": "Bearer"}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def secure(cloud: Cloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cloud]:
    """The stand-in behind TLS, which wants a token; an account that gets them."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "stand-in")])
    now = datetime.datetime.now(datetime.timezone.utc)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
        .sign(key, hashes.SHA256())
    )
    (tmp_path / "key.pem").write_text(pem)
    (tmp_path / "cert.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    _Tokens.given = 0
    with HTTPServer(("127.0.0.1", 0), _Tokens) as tokens:
        thread = threading.Thread(target=tokens.serve_forever, daemon=True)
        thread.start()
        account = {
            "type": "service_account",
            "project_id": "test-project",
            "private_key_id": "none",
            "private_key": pem,
            "client_email": "tests@test-project.iam.gserviceaccount.com",
            "token_uri": f"http://127.0.0.1:{tokens.server_port}/token",
        }
        (tmp_path / "account.json").write_text(json.dumps(account))
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "account.json"))
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "cert.pem"))
        files = {"ssl_keyfile": str(tmp_path / "key.pem"), "ssl_certfile": str(tmp_path / "cert.pem")}
        with cloud.stand_in.serve(**files) as url:
            cloud.url = url
            yield cloud
        tokens.shutdown()
        thread.join(timeout=10)


def test_tokens_are_sent_and_never_shown(secure: Cloud) -> None:
    """The first one is refused; the second one is good, until a server answers with it in an error."""
    secure.stand_in.token = SECRETS[1]
    made = secure.run("vertex")
    assert made.code == 0, made
    assert {seen.authorization for seen in secure.stand_in.log} == {f"Bearer {secret}" for secret in SECRETS}
    assert secure.stand_in.log[1].authorization == f"Bearer {SECRETS[1]}"
    secure.stand_in.token = "another"
    refused = secure.run("vertex")
    assert refused.code == 1
    assert "401 not good: Bearer ***" in refused.errors[0]
    for text in (made.out, made.err, refused.out, refused.err):
        assert not [secret for secret in SECRETS if secret in text]
    auth = GoogleAuth()
    auth.credentials().token = SECRETS[0]
    assert repr(auth) == "GoogleAuth()"


def test_credentials_that_are_refused(secure: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = (
        b'{"error": "invalid_grant", "error_description": "account not found", "access_token": "ya29.first-secret"}'
    )

    def refuse(self: _Tokens) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(400)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    monkeypatch.setattr(_Tokens, "do_POST", refuse)
    refused = secure.run("vertex")
    assert refused.code == 1
    assert "no access token for the Google credentials: invalid_grant: account not found" in refused.errors[0]
    assert SECRETS[0] not in refused.err
