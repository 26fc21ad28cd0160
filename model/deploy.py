"""Puts a SavedModel online, on AI Platform Prediction or on Vertex AI, and takes it down again.

    python -m model.deploy ai_platform --model PATH --bucket gs://BUCKET --project P --name M [--default]
    python -m model.deploy vertex --model PATH --bucket gs://BUCKET --project P --location L --name M
    ... --delete     delete what the same arguments would have made
    ... --dry-run    print each call, make none, need no credentials

Whatever is there already and is the same is left alone, so a command that was broken off is run again. The files go to
<bucket>/<name>/<version>-<hash of the content>. Exit codes: 0 done, 2 the command line is wrong, does not fit what is
there, or names no model; 1 the service refused or failed.

Tested against a server on loopback that answers as the two REST APIs are documented to, and an emulator of Cloud
Storage. Not tested without the cloud: the services themselves (quotas, permissions, whether a runtime or container can
load the model, whether AI Platform is open to a project). Vertex AI lists a model or a deployment only when it is done:
one that was under way when the command was killed, or whose request's answer was lost, is not recognised before, and
may be made twice.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from model import packaged, terminal
from model.argument_types import positive, whole_number
from model.cloud.api import Api, Call, DryApi
from model.cloud.errors import DeploymentError, ServiceError, SettingError
from model.cloud.upload import CloudStorage, DryStorage, ModelFolder, Storage, artifact_uri, read_folder
from model.deployment.ai_platform import HOST, NAME, AiPlatform, AiPlatformSettings, region_of
from model.deployment.vertex import IMAGE, VertexDeployment, VertexSettings, host
from model.errors import ModelError
from model.specs import Signature, TensorSpec
from model.version import add_version

_PROJECT = re.compile(r"[a-z0-9][a-z0-9.:-]{1,62}", re.ASCII)
_REGION = re.compile(r"[a-z][a-z0-9-]{1,40}", re.ASCII)
_DISPLAY_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}", re.ASCII)


@dataclass
class _Report:
    """What is done, as it is done."""

    calls: list[Call] = field(default_factory=list)
    steps: list[tuple[str, str]] = field(default_factory=list)
    dry: bool = False

    def tell(self, line: str) -> None:
        terminal.print_line(line, stderr=True)

    def did(self, what: str, how: str) -> None:
        self.steps.append((what, how))
        if not self.dry:
            self.tell(f"{what}: {how}")


def main(
    arguments: Sequence[str] | None = None,
    *,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> int:
    """Runs the command line.

    Args:
      arguments: the command line's arguments; those of the process by default.
      sleep: waits some seconds.
      clock: seconds, monotonic.

    Returns:
      The exit code: 0 done, 2 the command line is wrong or there is no such model, 1 the service failed.
    """
    options = _parser().parse_args(arguments)
    options.model = packaged.located(options.model)
    try:
        return _run(options, sleep, clock)
    except (ModelError, SettingError) as error:
        terminal.print_error(str(error))
        return 2
    except DeploymentError as error:
        terminal.print_error(str(error))
        return 1
    except KeyboardInterrupt:
        terminal.print_error("interrupted; what was begun goes on in the service: run the same command again later")
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = terminal.ArgumentParser(
        prog="python -m model.deploy", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_version(parser)
    services = parser.add_subparsers(dest="service", required=True, metavar="{ai_platform,vertex}")
    common = terminal.ArgumentParser(add_help=False)
    common.add_argument("--model", required=True, metavar="PATH", help="folder of the SavedModel")
    common.add_argument("--bucket", required=True, metavar="gs://BUCKET/PREFIX", help="where its files go")
    common.add_argument("--project", required=True, help="id of the Google Cloud project")
    common.add_argument("--name", required=True, help="name of the model")
    common.add_argument("--version", help="name of this version; default: the name of the model's folder")
    common.add_argument("--url", help="host of the service, if not Google's; on http://127.0.0.1 without credentials")
    common.add_argument(
        "--timeout", type=positive, default=1800.0, metavar="S", help="for all operations; default 1800"
    )
    common.add_argument("--delete", action="store_true", help="delete what the same arguments would have made")
    common.add_argument("--dry-run", action="store_true", help="print each call and make none")
    common.add_argument("--json", action="store_true", help="print one JSON object on standard output")
    one = services.add_parser("ai_platform", parents=[common], help="AI Platform Prediction, API v1")
    one.add_argument("--region", help="of the model; default us-central1")
    one.add_argument("--runtime-version", default="2.11", metavar="V", help="default 2.11")
    one.add_argument("--python-version", default="3.7", metavar="V", help="default 3.7")
    one.add_argument("--machine-type", default="n1-standard-2", metavar="TYPE", help="default n1-standard-2")
    one.add_argument("--default", action="store_true", help="make the version the model's default")
    two = services.add_parser("vertex", parents=[common], help="Vertex AI, API v1")
    two.add_argument("--location", required=True, help="region, such as us-central1")
    two.add_argument("--endpoint", metavar="NAME", help="display name of the endpoint; default: the model's")
    two.add_argument("--image", default=IMAGE, metavar="URI", help=f"container to serve it; default {IMAGE}")
    two.add_argument("--machine-type", default="n1-standard-2", metavar="TYPE", help="default n1-standard-2")
    two.add_argument("--min-replicas", type=whole_number, default=1, metavar="N", help="nodes at least; default 1")
    two.add_argument("--max-replicas", type=whole_number, default=1, metavar="N", help="nodes at most; default 1")
    two.add_argument(
        "--traffic",
        type=whole_number,
        default=100,
        metavar="PERCENT",
        help="share of the endpoint's requests; default 100",
    )
    return parser


def _run(options: argparse.Namespace, sleep: Callable[[float], None], clock: Callable[[], float]) -> int:
    _check(options)
    model = read_folder(options.model)
    uri = artifact_uri(options.bucket, options.name, options.version, model.sha256)
    report = _Report(dry=options.dry_run)
    if not options.json:
        _print_model(model)
    root = f"{options.url or (HOST if options.service == 'ai_platform' else host(options.location))}/v1"
    if options.dry_run:
        resource = _do(options, model, uri, DryApi(root, report.calls), DryStorage(report.calls), report)
    else:
        resource = _do_really(options, model, uri, root, report, sleep, clock)
    config = None if options.delete else _config(options, resource)
    if options.json:
        terminal.print_text(json.dumps(_summary(options, model, uri, report, resource, config), indent=2))
        return 0
    for call in report.calls:
        _print_call(call)
    if config is not None:
        terminal.print_line(f"resource: {resource}")
        terminal.print_text(f"for a run's config:\n{json.dumps(config, indent=2)}")
    elif not options.dry_run:
        for what, how in report.steps:
            terminal.print_line(f"{what}: {how}")
    return 0


def _do_really(
    options: argparse.Namespace,
    model: ModelFolder,
    uri: str,
    root: str,
    report: _Report,
    sleep: Callable[[float], None],
    clock: Callable[[], float],
) -> str:
    from model.cloud.credentials import GoogleAuth
    from model.cloud.rest import RestApi, is_loopback

    auth = GoogleAuth()
    storage = CloudStorage(options.project, auth, report.tell)
    sent = None if is_loopback(root) else auth
    api = RestApi(root, sent, timeout=options.timeout, tell=report.tell, sleep=sleep, clock=clock)
    try:
        return _do(options, model, uri, api, storage, report)
    except ServiceError:
        if report.steps:
            report.tell("what is reported above is done; the same command continues from there")
        raise
    finally:
        api.close()


def _do(options: argparse.Namespace, model: ModelFolder, uri: str, api: Api, storage: Storage, report: _Report) -> str:
    service: AiPlatform | VertexDeployment
    if options.service == "ai_platform":
        service = AiPlatform(api, _ai_platform(options), report.did)
    else:
        service = VertexDeployment(api, _vertex(options), model.sha256, report.did)
    if options.delete:
        if service.delete(uri):
            count = storage.delete(model, uri)
            report.did(uri, f"{count} file(s) deleted" if count else "not there")
        return ""

    def upload() -> None:
        count = storage.upload(model, uri)
        report.did(uri, f"{count} file(s) uploaded, {len(model.files) - count} were there")

    return service.create(uri, upload)


def _check(options: argparse.Namespace) -> None:
    """Raises SettingError for what is wrong whatever the service says; fills in the defaults."""
    if options.url is not None:
        from model.cloud.rest import check_url

        options.url = check_url(options.url)
    if not _PROJECT.fullmatch(options.project):
        raise SettingError(f"--project {options.project!r} is not the id of a project")
    folder = os.path.basename(os.path.abspath(options.model))
    if options.version is None:
        # Names of versions start with a letter; TensorFlow Serving's folders are numbers.
        options.version = f"v{folder}" if folder.isascii() and folder.isdigit() else folder
    names = NAME if options.service == "ai_platform" else _DISPLAY_NAME
    rule = (
        "a letter, then letters, digits and _"
        if options.service == "ai_platform"
        else "a letter or digit, then letters, digits, _, . and -"
    )
    for key in ("name", "version", "endpoint"):
        value = getattr(options, key, None)
        if value is not None and not names.fullmatch(value):
            raise SettingError(f"--{key} {value!r}: at most 128 characters, {rule}")
    if options.service == "ai_platform":
        options.region = region_of(options.url, options.region)
    place = options.region if options.service == "ai_platform" else options.location
    if not _REGION.fullmatch(place):
        raise SettingError(f"{place!r} is not a region; one is us-central1")
    if options.service == "vertex":
        if not 1 <= options.min_replicas <= options.max_replicas:
            raise SettingError("--min-replicas is at least 1, --max-replicas not below it")
        if not 0 <= options.traffic <= 100:
            raise SettingError("--traffic is a percentage: 0 to 100")


def _ai_platform(options: argparse.Namespace) -> AiPlatformSettings:
    return AiPlatformSettings(
        project=options.project,
        name=options.name,
        version=options.version,
        region=options.region,
        runtime_version=options.runtime_version,
        python_version=options.python_version,
        machine_type=options.machine_type,
        default=options.default,
    )


def _vertex(options: argparse.Namespace) -> VertexSettings:
    return VertexSettings(
        project=options.project,
        location=options.location,
        name=options.name,
        version=options.version,
        endpoint=options.endpoint or options.name,
        image=options.image,
        machine_type=options.machine_type,
        min_replicas=options.min_replicas,
        max_replicas=options.max_replicas,
        traffic=options.traffic,
    )


def _config(options: argparse.Namespace, resource: str) -> dict[str, Any]:
    model = {"type": "endpoint", "protocol": options.service, "resource": resource}
    if options.url:
        model["url"] = options.url
    return {"model": {**model, "signature_from": options.model}}


def _summary(
    options: argparse.Namespace,
    model: ModelFolder,
    uri: str,
    report: _Report,
    resource: str,
    config: dict[str, Any] | None,
) -> dict[str, Any]:
    summary: dict[str, Any] = {
        "service": options.service,
        "action": "delete" if options.delete else "create",
        "dry_run": options.dry_run,
        "bytes": model.bytes,
        "sha256": model.sha256,
        "signatures": {name: _signature(signature) for name, signature in model.signatures.items()},
        "artifacts": uri,
    }
    if options.dry_run:
        summary["calls"] = [vars(call) for call in report.calls]
    else:
        summary["steps"] = [{"what": what, "done": how} for what, how in report.steps]
    return summary if config is None else {**summary, "resource": resource, "config": config}


def _print_model(model: ModelFolder) -> None:
    terminal.print_line(f"{model.path}: {len(model.files)} files, {model.bytes:,} bytes, sha256 {model.sha256[:12]}")
    for name, signature in model.signatures.items():
        terminal.print_line(f"  {name}: {_signature(signature)}")


def _signature(signature: Signature) -> str:
    return f"({_specs(signature.inputs)}) -> ({_specs(signature.outputs)})"


def _specs(specs: Sequence[TensorSpec]) -> str:
    return ", ".join(f"{spec.name}: {spec.dtype} {_shape(spec)}" for spec in specs)


def _shape(spec: TensorSpec) -> str:
    if spec.shape is None:
        return "any"
    return f"[{', '.join('?' if size is None else str(size) for size in spec.shape)}]"


def _print_call(call: Call) -> None:
    condition = f"  # {call.when}" if call.when else ""
    terminal.print_line(f"{call.method} {call.url}{f' ({call.note})' if call.note else ''}{condition}")
    if call.body is not None:
        terminal.print_line(json.dumps(call.body))


if __name__ == "__main__":
    sys.exit(main())
