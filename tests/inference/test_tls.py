"""Encrypted connections: a certificate that is trusted only if the config says so, over HTTPS and gRPC."""

from __future__ import annotations

import datetime
import http.server
import ipaddress
import json
import ssl
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pyarrow as pa
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from inference import Endpoint, EndpointHandler, Target
from inference.endpoint.declared_signature import declared_signature
from inference.endpoint.retries import ModelServerRetries
from inference.errors import EndpointConfigError

SIGNATURE = declared_signature({"x": "float32"})
ROWS = pa.RecordBatch.from_pydict({"x": pa.array([1.0, 2.0, 3.0], pa.float32())})


@dataclass(frozen=True)
class Identity:
    """A key, and a certificate for this machine that its own key signs."""

    key: bytes
    certificate: bytes


@pytest.fixture(scope="module")
def identity() -> Identity:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.timezone.utc)
    names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return Identity(private, certificate.public_bytes(serialization.Encoding.PEM))


@pytest.fixture
def ca_file(identity: Identity, tmp_path: Path) -> str:
    path = tmp_path / "ca.pem"
    path.write_bytes(identity.certificate)
    return str(path)


class _Doubles(http.server.BaseHTTPRequestHandler):
    """Speaks enough of TensorFlow Serving's REST API to double x."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        given = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        body = json.dumps({"outputs": [2 * x for x in given["inputs"]["x"]]}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def https(identity: Identity, tmp_path: Path) -> Iterator[str]:
    pem = tmp_path / "server.pem"
    pem.write_bytes(identity.key + identity.certificate)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Doubles)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"https://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


class _Doubler(grpc.GenericRpcHandler):
    """PredictionService.Predict that doubles x."""

    def service(self, details: Any) -> Any:
        if details.method != "/tensorflow.serving.PredictionService/Predict":
            return None

        def predict(request: bytes, context: Any) -> bytes:
            import tensorflow as tf
            from tensorflow_serving.apis import predict_pb2

            given = predict_pb2.PredictRequest.FromString(request)
            answer = predict_pb2.PredictResponse()
            doubled = tf.make_ndarray(given.inputs["x"]) * 2
            answer.outputs["predictions"].CopyFrom(tf.make_tensor_proto(doubled))
            return bytes(answer.SerializeToString())

        return grpc.unary_unary_rpc_method_handler(predict)


@pytest.fixture
def grpcs(identity: Identity) -> Iterator[str]:
    server = grpc.server(ThreadPoolExecutor(2))
    server.add_generic_rpc_handlers((_Doubler(),))
    credentials = grpc.ssl_server_credentials([(identity.key, identity.certificate)])
    port = server.add_secure_port("127.0.0.1:0", credentials)
    server.start()
    yield f"grpcs://localhost:{port}"
    server.stop(None).wait()


def ask(protocol: str, url: str, ca_file: str | None) -> pa.RecordBatch:
    patience = ModelServerRetries(max_attempts=2, deadline_s=10)
    handler = EndpointHandler(
        Endpoint(protocol, Target(url=url), retry_limits=patience, ca_file=ca_file, timeout_s=5), SIGNATURE
    )
    client = handler.load_model()
    try:
        [result] = handler.run_inference([ROWS], client)
    finally:
        client.close()
    return result


@pytest.mark.parametrize(("protocol", "server"), [("tf_serving_rest", "https"), ("tf_serving_grpc", "grpcs")])
def test_a_certificate_is_trusted_if_the_config_names_it(
    protocol: str, server: str, ca_file: str, request: pytest.FixtureRequest
) -> None:
    url = request.getfixturevalue(server)
    assert ask(protocol, url, ca_file)["predictions"].to_pylist() == [2.0, 4.0, 6.0]
    with pytest.raises(EndpointConfigError, match="not trusted.*ca_file"):
        ask(protocol, url, None)


def test_an_unencrypted_connection_to_an_encrypted_server_predicts_nothing(https: str, grpcs: str) -> None:
    for protocol, url in (
        ("tf_serving_rest", https.replace("https", "http")),
        ("tf_serving_grpc", grpcs.replace("grpcs", "grpc")),
    ):
        assert ask(protocol, url, None)["predictions"].null_count == 3
