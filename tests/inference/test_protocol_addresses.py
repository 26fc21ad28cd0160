"""Where each protocol sends its requests, what it refuses as a target, and what it makes of error bodies."""

import sys
from pathlib import Path

import pyarrow as pa
import pytest

from inference.endpoint.protocols import NAMES, Response, Target, protocol_class
from model.specs import TensorSpec
from tests.support import processes

INPUTS = [TensorSpec("x", "float32", (None,))]
ARRAYS = [pa.array([1.5, 2.0], pa.float32())]
MODEL = "projects/p-1/models/m_1"
ENDPOINT = "projects/p-1/locations/europe-west4/endpoints/123"
VERTEX = "https://europe-west4-aiplatform.googleapis.com"
LOCAL = "http://127.0.0.1:8501"


def request(name, **target):
    return protocol_class(name)(Target(**target)).predict(ARRAYS, INPUTS)


@pytest.mark.parametrize(
    ("name", "target", "url"),
    [
        ("ai_platform", {"resource": MODEL}, f"https://ml.googleapis.com/v1/{MODEL}:predict"),
        ("ai_platform", {"resource": f"{MODEL}/versions/v2"}, f"https://ml.googleapis.com/v1/{MODEL}/versions/v2:predict"),
        ("ai_platform", {"resource": MODEL, "version": "v2"}, f"https://ml.googleapis.com/v1/{MODEL}/versions/v2:predict"),
        ("ai_platform", {"resource": MODEL, "url": "https://europe-west1-ml.googleapis.com/"},
         f"https://europe-west1-ml.googleapis.com/v1/{MODEL}:predict"),
        ("ai_platform", {"url": LOCAL}, f"{LOCAL}/v1/projects/-/models/default:predict"),
        ("ai_platform", {"url": LOCAL, "model": "a/b", "version": "v1"},
         f"{LOCAL}/v1/projects/-/models/a%2Fb/versions/v1:predict"),
        ("ai_platform", {"url": f"{LOCAL}/x/models/m:predict?k=1"}, f"{LOCAL}/x/models/m:predict?k=1"),
        ("vertex", {"resource": ENDPOINT}, f"{VERTEX}/v1/{ENDPOINT}:predict"),
        ("vertex", {"resource": ENDPOINT, "raw": True}, f"{VERTEX}/v1/{ENDPOINT}:rawPredict"),
        ("vertex", {"resource": "projects/p/locations/global/endpoints/9"},
         "https://aiplatform.googleapis.com/v1/projects/p/locations/global/endpoints/9:predict"),
        ("vertex", {"resource": ENDPOINT, "url": "https://123.europe-west4-9.prediction.vertexai.goog"},
         f"https://123.europe-west4-9.prediction.vertexai.goog/v1/{ENDPOINT}:predict"),
        ("vertex", {"url": LOCAL, "model": "m"}, f"{LOCAL}/v1/projects/-/locations/-/endpoints/m:predict"),
        ("vertex", {"url": f"{LOCAL}/e:rawPredict"}, f"{LOCAL}/e:rawPredict"),
        ("tf_serving_rest", {"url": LOCAL, "model": "m"}, f"{LOCAL}/v1/models/m:predict"),
        ("tf_serving_rest", {"url": f"{LOCAL}/serving/"}, f"{LOCAL}/serving/v1/models/default:predict"),
        ("tf_serving_rest", {"url": LOCAL, "version": "12"}, f"{LOCAL}/v1/models/default/versions/12:predict"),
        ("tf_serving_rest", {"url": LOCAL, "label": "a b"}, f"{LOCAL}/v1/models/default/labels/a%20b:predict"),
        ("tf_serving_rest", {"url": LOCAL, "model": "ü?#%"}, f"{LOCAL}/v1/models/%C3%BC%3F%23%25:predict"),
        ("tf_serving_rest", {"url": f"{LOCAL}/p/v1/models/m/versions/3:predict"},
         f"{LOCAL}/p/v1/models/m/versions/3:predict"),
        ("kserve_v1", {"url": LOCAL, "model": "m"}, f"{LOCAL}/v1/models/m:predict"),
        ("kserve_v1", {"url": "https://h/v1/models/m:predict"}, "https://h/v1/models/m:predict"),
        ("kserve_v2", {"url": LOCAL, "model": "m"}, f"{LOCAL}/v2/models/m/infer"),
        ("kserve_v2", {"url": LOCAL, "version": "v1"}, f"{LOCAL}/v2/models/default/versions/v1/infer"),
        ("kserve_v2", {"url": "https://h/v2/models/m/infer/"}, "https://h/v2/models/m/infer"),
        ("kserve_v2", {"url": "http://[::1]:80/a"}, "http://[::1]:80/a/v2/models/default/infer"),
    ],
)  # fmt: skip
def test_addresses(name, target, url):
    sent = request(name, **target)
    assert sent.url == url
    assert sent.headers == {"Content-Type": "application/json"}


@pytest.mark.parametrize(
    ("name", "url", "described"),
    [
        ("tf_serving_rest", LOCAL, f"{LOCAL}/v1/models/default/metadata"),
        ("tf_serving_rest", f"{LOCAL}/p/v1/models/m/labels/x:predict", f"{LOCAL}/p/v1/models/m/labels/x/metadata"),
        ("kserve_v2", LOCAL, f"{LOCAL}/v2/models/default"),
        ("kserve_v2", f"{LOCAL}/p/v2/models/m/versions/2/infer", f"{LOCAL}/p/v2/models/m/versions/2"),
    ],
)
def test_metadata_is_asked_where_the_model_is(name, url, described):
    asked = protocol_class(name)(Target(url=url)).describe()
    assert (asked.url, asked.body) == (described, None)


def test_what_cannot_tell_its_signature_says_so():
    for name in NAMES:
        protocol = protocol_class(name)
        target = Target(url="127.0.0.1:1" if protocol.transport == "grpc" else LOCAL)
        assert (protocol(target).describe() is None) == protocol.needs_signature
        assert protocol.name == name
        assert protocol.max_request_bytes == (1_500_000 if name in ("ai_platform", "vertex") else None)


HTTP = [name for name in NAMES if name != "tf_serving_grpc"]
SECRET = "hunter2"


@pytest.mark.parametrize("name", HTTP)
@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("127.0.0.1:8501", "url: it has no scheme"),
        ("localhost", "url: it has no scheme"),
        ("", "url: it has no scheme"),
        ("ftp://host", "url: it starts with ftp://; write http://HOST:PORT"),
        ("grpc://host:1", "url: it starts with grpc://"),
        ("http://", "url: it names no host"),
        ("http://:80", "url: it names no host"),
        ("http://host:port", "url: it cannot be read"),
        ("http://host:99999", "url: it cannot be read"),
        ("http://[::1", "url: it cannot be read"),
        ("http://ho st", "url: it has white space"),
        ("http://host/a\nb", "url: it has white space"),
        (" http://host", "url: it has white space"),
        (f"http://user:{SECRET}@host", r"url: it has credentials in it \(\.\.\.@host\); send them as a header"),
        (f"https://{SECRET}@host/v1/models/m:predict", "url: it has credentials in it"),
        (f"http://user:{SECRET}@host:port", "url: it cannot be read"),
        (f"user:{SECRET}@host", "url: it has no scheme"),
        (f"http://host?key={SECRET}", "url: it has a query"),
        ("http://host#part", "url: it has a fragment"),
    ],
)
def test_bad_urls_are_refused_without_repeating_secrets(name, url, message):
    with pytest.raises(ValueError, match=message) as caught:
        protocol_class(name)(Target(url=url))
    assert SECRET not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    ("name", "target", "message"),
    [
        ("tf_serving_rest", {}, "url: it is missing"),
        ("kserve_v1", {}, "url: it is missing"),
        ("kserve_v2", {}, "url: it is missing"),
        ("tf_serving_grpc", {}, "url: it is missing"),
        ("ai_platform", {}, "resource: it is missing; name the model as projects/P/models/M"),
        ("vertex", {}, "resource: it is missing; name the endpoint as projects/P/locations/L/endpoints/E"),
        ("ai_platform", {"resource": "projects/p/models"}, "resource: 'projects/p/models' is not"),
        ("ai_platform", {"resource": ENDPOINT}, "is not projects/P/models/M"),
        ("ai_platform", {"resource": f"{MODEL}/../x"}, "is not projects/P/models/M"),
        ("ai_platform", {"resource": f"{MODEL}:predict?x"}, "is not projects/P/models/M"),
        ("ai_platform", {"resource": f"{MODEL}/versions/a", "version": "b"}, "version: 'b', but the resource names"),
        ("ai_platform", {"resource": MODEL, "label": "l"}, "label: "),
        ("vertex", {"resource": MODEL}, "is not projects/P/locations/L/endpoints/E"),
        ("vertex", {"resource": "projects/p/locations/evil.example/endpoints/e"}, "is not projects/P"),
        ("vertex", {"resource": ENDPOINT, "version": "1"}, "version: an endpoint decides"),
        ("vertex", {"url": f"{LOCAL}/e:predict", "raw": True}, "raw: the url ends with :predict"),
        ("tf_serving_rest", {"url": LOCAL, "version": "v1"}, "version: 'v1' is not a number"),
        ("tf_serving_rest", {"url": LOCAL, "version": "1", "label": "a"}, "version and label: they exclude"),
        ("tf_serving_rest", {"url": f"{LOCAL}/m:predict", "version": "1"}, "whole address"),
        ("tf_serving_rest", {"url": LOCAL, "model": ""}, "model: '' is not a name"),
        ("tf_serving_rest", {"url": LOCAL, "model": ".."}, "model: '..' is not a name"),
        ("tf_serving_rest", {"url": f"{LOCAL}/v2/models/m/infer"}, "ends with /infer, which is another protocol's"),
        ("kserve_v2", {"url": f"{LOCAL}/v1/models/m:predict"}, "this one's end with /infer"),
        ("kserve_v2", {"url": LOCAL, "label": "a"}, "label: this protocol has none"),
        ("kserve_v1", {"url": LOCAL, "version": "1"}, "version: this protocol has none"),
        ("tf_serving_grpc", {"url": "h:1", "version": "v1"}, "version: 'v1' is not a number"),
        ("tf_serving_grpc", {"url": "h:1", "version": "1", "label": "a"}, "version and label: they exclude"),
        ("tf_serving_grpc", {"url": "h"}, "url: the port is missing"),
        ("tf_serving_grpc", {"url": "ftp://h:1"}, "url: it starts with ftp://; write HOST:PORT"),
        ("tf_serving_grpc", {"url": "grpc://h:1/path"}, "a gRPC server has no path"),
        ("tf_serving_grpc", {"url": f"u:{SECRET}@h:1"}, "url: it has credentials"),
        ("tf_serving_grpc", {"url": "h :1"}, "url: it has white space"),
        ("tf_serving_grpc", {"url": ":1"}, "url: it names no host"),
    ],
)
def test_targets_that_lack_or_contradict_something(name, target, message):
    with pytest.raises(ValueError, match=message) as caught:
        protocol_class(name)(Target(**target))
    assert SECRET not in str(caught.value)


def test_there_is_no_protocol_of_another_name():
    with pytest.raises(ValueError, match="no protocol 'rest'; there are ai_platform, vertex"):
        protocol_class("rest")


def test_no_protocol_needs_tensorflow():
    code = (
        "import sys; from inference.endpoint.protocols import NAMES, protocol_class\n"
        "for name in NAMES: protocol_class(name)\n"
        "sys.exit(bool({'tensorflow', 'apache_beam'} & set(sys.modules)))"
    )
    root = Path(__file__).resolve().parents[2]
    assert processes.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0


PAGE = (
    b"<!DOCTYPE html><html><head><style>b{}</style><script>var a = '<b>';</script><!-- x --></head>"
    b"<body><h1>Not&nbsp;here</h1>\n<p>go &amp; see</p></body></html>"
)


@pytest.mark.parametrize("name", HTTP)
@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"error": "a negative age"}', "a negative age"),
        (b'{"error": {"code": 400, "message": "bad\\nage", "status": "INVALID_ARGUMENT"}}', "bad age"),
        (b'[{"error": {"message": "in a list"}}]', "in a list"),
        (b'{"detail": "Not Found"}', "Not Found"),
        (b'{"error": "Bad", "message": "the age"}', "Bad: the age"),
        (b'{"detail": [{"type": "missing", "loc": ["body", "x"], "msg": "Field required", "input": {}}]}',
         "body.x: Field required"),
        (b'{"detail": [{"loc": ["a"], "msg": "m"}, {"msg": "n"}]}', "a: m; n"),
        (b'{"status": 5}', '{"status": 5}'),
        (b"null", "null"),
        (b'"just text"', "just text"),
        (b"upstream   connect\r\nerror\x00\x1b[31m", "upstream connect error [31m"),
        (b"<html><head><TITLE>502 Bad\nGateway</TITLE></head><body>nginx</body>", "502 Bad Gateway"),
        (PAGE, "Not here go & see"),
        (b'Traceback (most recent call last):\n  File "a"\nValueError: a negative age\n', "ValueError: a negative age"),
        (b"\xff\xfe!", "��!"),
        (b"", ""),
        (b'{"error": "' + b"x" * 10_000 + b'"}', "x" * 497 + "..."),
        (b"y" * 10_000_000, "y" * 497 + "..."),
        (b"<script " * 1_000_000, ""),
        (b'{"error":' * 200 + b"1" + b"}" * 200, None),
    ],
)  # fmt: skip
def test_an_error_in_one_line(name, body, message):
    protocol = protocol_class(name)(Target(url=LOCAL))
    said = protocol.error_message(Response(body))
    assert len(said) <= 500
    assert said.isprintable()
    if message is not None:
        assert said == message or (not message and said.startswith("<script"))
