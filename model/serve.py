"""Serves SavedModels on this machine: `python -m model.serve --model PATH`.

REST as TensorFlow Serving, KServe (both versions of its protocol), AI Platform and Vertex AI have it, and TensorFlow
Serving's gRPC, all at once. For developing, testing and comparing; it knows neither users nor encryption, and binds
the loopback address unless told otherwise. It can misbehave on purpose, so that clients can rehearse it.

Several models are served with `--model-config-file`, in the format of TensorFlow Serving, some of whose options are
taken under their own names: `--model_name`, `--model_base_path`, `--model_config_file`,
`--model_config_file_poll_wait_seconds`, `--file_system_poll_wait_seconds` and `--rest_api_port` (`--port` is gRPC's
then, as it is there).

Requests that wait while the model is busy share its next call. A model whose rows depend on each other must not be
called so: `--max-batch-rows 1`.
"""

import argparse
import contextlib
import importlib
import os
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from model import packaged, terminal
from model.argument_types import amount, count, port, positive, share, whole_number
from model.errors import ModelError
from model.imports import uncollected, without_unused
from model.quiet import swallowed_stderr
from model.serving.jobs import options as job_options
from model.serving.options import ERROR_KINDS, Options, ServedModel
from model.serving.ports import bind, choose_grpc_port
from model.version import add_version


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line.

    Args:
      arguments: the command line's arguments; those of the process by default.

    Returns:
      The exit code: 0 when stopped by a signal after finishing what was in flight, 1 if that took too long, 2 if
      the model, a port or the command line is wrong.
    """
    parser = _parser()
    parsed = parser.parse_args(arguments)
    _settle_ports(parser, parsed)
    try:
        options = _options(parsed, _models(parser, parsed))
    except (ModelError, OSError) as error:
        return _fail(str(error))
    with without_unused():
        return _serve(options)


def _serve(options: Options) -> int:
    try:
        listener = bind(options.host, options.port)
    except OSError as error:
        return _fail(f"cannot listen on {options.host} port {options.port}: {error.strerror or error}; try --port 0")
    with listener:
        try:
            chosen = options.port != 0
            grpc_port = choose_grpc_port(options.host, options.grpc_port, listener.getsockname()[1], chosen)
        except OSError as error:
            return _fail(
                f"gRPC cannot listen on {options.host} port {options.grpc_port}: {error.strerror or error}; "
                "try --grpc-port 0"
            )
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
        os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
        try:
            for model in options.models:
                _check_model(model, options.signature)
            code: int = _imported(options)(options, listener, grpc_port)
            return code
        except (ModelError, OSError) as error:
            return _fail(str(error))
        except KeyboardInterrupt:
            return 130


def _imported(options: Options) -> Any:
    """The function that runs the server, once its libraries have been imported, silently."""
    with swallowed_stderr(), uncollected():
        from model.runtime.errors import UnsupportedModelError
        from model.runtime.small_graphs import check_library
        from model.serving.app import run

        if options.runtime == "python":
            importlib.import_module("tensorflow")
        else:
            with contextlib.suppress(UnsupportedModelError):
                # Loading a model says so, and whose turn it is then.
                check_library()
    return run


def _models(parser: argparse.ArgumentParser, parsed: argparse.Namespace) -> tuple[ServedModel, ...]:
    """Reads the models of the config file. Raises ModelError or OSError."""
    if parsed.model_config_file is None:
        if parsed.model is None:
            parser.error("no model is named; give --model PATH, or --model-config-file FILE")
        return ()
    from model.serving.model_config import read_model_config

    return read_model_config(parsed.model_config_file)


def _settle_ports(parser: argparse.ArgumentParser, parsed: argparse.Namespace) -> None:
    """Sets `port` and `grpc_port`. With --rest_api_port, --port is gRPC's, as for TensorFlow Serving."""
    if parsed.rest_api_port is not None:
        if parsed.port is not None and parsed.grpc_port is not None:
            parser.error("--port is gRPC's beside --rest_api_port, and so is --grpc-port; leave one out")
        parsed.grpc_port = parsed.port if parsed.grpc_port is None else parsed.grpc_port
        parsed.port = parsed.rest_api_port
    elif parsed.port is None:
        parsed.port = Options.port


def _check_model(model: ServedModel, signature: str) -> None:
    """Finds a wrong path or signature before TensorFlow is imported. Raises ModelError."""
    from model.signature import DEFAULT_SIGNATURE, choose_signature, latest_version, read_signatures

    folder = model.path
    if not os.path.exists(os.path.join(folder, "saved_model.pb")) and os.path.isdir(folder):
        newest = latest_version(entry.name for entry in os.scandir(folder) if entry.is_dir())
        if newest is not None:
            # An older version may do if this one is only half there.
            return
    signatures = read_signatures(folder)
    # A model that has no signature of the usual name is served; its requests name one.
    if not signatures or signature != DEFAULT_SIGNATURE:
        choose_signature(signatures, signature, folder)


def _fail(message: str) -> int:
    terminal.print_error(message)
    return 2


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        sys.exit(_fail(f"{message}; --help lists the options"))


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="python -m model.serve", description="Serve SavedModels over REST and gRPC.")
    add = parser.add_argument
    add(
        "--model",
        "--model_base_path",
        dest="model",
        metavar="PATH",
        help="a SavedModel, or a folder of versions (v1, v2, ... or 1, 2)",
    )
    add("--name", "--model_name", dest="name", default="default", help="its name in requests (default: %(default)s)")
    add(
        "--model-config-file",
        "--model_config_file",
        dest="model_config_file",
        metavar="FILE",
        help="further models, as TensorFlow Serving lists them: a ModelServerConfig in protobuf's text format",
    )
    add(
        "--model-config-poll-seconds",
        "--model_config_file_poll_wait_seconds",
        dest="model_config_poll_seconds",
        metavar="SECONDS",
        type=amount,
        default=0.0,
        help="how often to read that file again (default: never)",
    )
    add("--signature", default="serving_default", help="the one to call if none is named (default: %(default)s)")
    add("--host", default="127.0.0.1", help="the address to bind (default: %(default)s)")
    add(
        "--allowed-host",
        action="append",
        default=[],
        metavar="NAME",
        help="a name that requests may be addressed to, besides localhost and --host; repeatable",
    )
    add("--port", type=port, help=f"of REST; 0: any free one (default: {Options.port})")
    add("--rest_api_port", type=port, metavar="PORT", help="of REST, with --port of gRPC, as for TensorFlow Serving")
    add("--grpc-port", type=port, help="of gRPC (default: the one below --port, or any free one)")
    add("--label", type=_label, action="append", default=[], metavar="NAME=VERSION", help="name a version; repeatable")
    add(
        "--poll-seconds",
        "--file_system_poll_wait_seconds",
        dest="poll_seconds",
        metavar="SECONDS",
        type=positive,
        default=1.0,
        help="how often to look for versions (default: %(default)s)",
    )
    add("--keep-versions", type=count, default=2, help="how many of the newest are served (default: %(default)s)")
    add("--runtime", choices=("native", "python"), help="what runs the model (default: native, python where it cannot)")
    add(
        "--op-library",
        action="append",
        default=[],
        metavar="FILE",
        help="a library of further operations that the model's graph uses; repeatable",
    )
    add("--json", action="store_true", help="say in JSON that the server is ready")
    add_version(parser)
    limits = parser.add_argument_group("limits")
    add = limits.add_argument
    add("--threads", type=count, default=os.cpu_count() or 1, help="model calls at a time (default: the cores)")
    add("--max-batch-rows", type=count, default=16_384, help="rows that waiting requests are joined to; 1: none")
    add("--max-batch-wait-ms", type=amount, default=0.0, help="wait for others though the model is free (default: 0)")
    add("--max-request-rows", type=count, default=262_144, help="rows of a request (default: %(default)s)")
    add("--max-queue-rows", type=count, default=1_000_000, help="rows that may wait (default: %(default)s)")
    add("--max-body-mb", type=positive, default=64.0, help="MiB of a request (default: %(default)g)")
    add("--max-connections", type=count, default=512, help="of REST, and of gRPC (default: %(default)s)")
    add("--request-seconds", type=positive, default=60.0, help="for a request to arrive (default: %(default)g)")
    add("--idle-seconds", type=positive, default=75.0, help="a connection without a request is kept (default: 75)")
    add("--drain-seconds", type=amount, default=10.0, help="for requests to finish when told to stop (default: 10)")
    faults = parser.add_argument_group("misbehaviour on purpose, of prediction requests")
    add = faults.add_argument
    add("--latency-ms", type=amount, default=0.0, help="added to each request")
    add("--error-rate", type=share, default=0.0, metavar="R", help="the share of requests that fail, 0 to 1")
    add("--error-kinds", type=_kinds, default=("503",), metavar="KIND,...", help=f"of {', '.join(ERROR_KINDS)}")
    add("--stall-seconds", type=amount, default=30.0, help="how long a stall takes (default: %(default)g)")
    add("--seed", type=whole_number, default=0, help="of the faults (default: %(default)s)")
    add("--quota-qps", type=positive, metavar="Q", help="requests a second; more get 429")
    add("--retry-after", type=amount, metavar="SECONDS", help="what 429 and 503 say (default: nothing)")
    job_options.add_arguments(parser)
    return parser


def _options(parsed: argparse.Namespace, more: tuple[ServedModel, ...]) -> Options:
    return Options(
        model=parsed.model and packaged.located(parsed.model),
        name=parsed.name,
        more=more,
        model_config_file=parsed.model_config_file,
        model_config_poll_s=parsed.model_config_poll_seconds,
        signature=parsed.signature,
        host=parsed.host,
        port=parsed.port,
        grpc_port=parsed.grpc_port,
        labels=dict(parsed.label),
        poll_seconds=parsed.poll_seconds,
        keep_versions=parsed.keep_versions,
        threads=parsed.threads,
        max_batch_rows=parsed.max_batch_rows,
        max_batch_wait_s=parsed.max_batch_wait_ms / 1000,
        max_request_rows=parsed.max_request_rows,
        max_queue_rows=parsed.max_queue_rows,
        max_body_bytes=min(int(parsed.max_body_mb * 2**20), 2**31 - 1),
        max_connections=parsed.max_connections,
        request_s=parsed.request_seconds,
        idle_s=parsed.idle_seconds,
        allowed_hosts=tuple(parsed.allowed_host),
        latency_s=parsed.latency_ms / 1000,
        error_rate=parsed.error_rate,
        error_kinds=parsed.error_kinds,
        stall_s=parsed.stall_seconds,
        seed=parsed.seed,
        quota_qps=parsed.quota_qps,
        retry_after_s=parsed.retry_after,
        drain_s=parsed.drain_seconds,
        runtime=parsed.runtime,
        op_libraries=tuple(parsed.op_library),
        json=parsed.json,
        jobs=job_options.options_of(parsed),
    )


def _kinds(text: str) -> tuple[str, ...]:
    kinds = tuple(text.split(","))
    unknown = [kind for kind in kinds if kind not in ERROR_KINDS]
    if unknown:
        raise argparse.ArgumentTypeError(f"{unknown[0]!r} is none of {', '.join(ERROR_KINDS)}")
    return kinds


def _label(text: str) -> tuple[str, int]:
    name, _, version = text.partition("=")
    if not name or not version.isdecimal() or len(version) > 18:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VERSION, such as stable=1")
    return name, int(version)


if __name__ == "__main__":
    sys.exit(main())
