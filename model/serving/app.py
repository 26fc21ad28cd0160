"""Runs the web application of the server: listens, serves, looks for versions, finishes what is in flight."""

import asyncio
import contextlib
import dataclasses
import gc
import json
import logging
import math
import os
import signal
import socket
from collections.abc import Callable, Iterator

import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from model import terminal
from model.errors import ModelError
from model.serving import metrics, rest_google, rest_kserve, rest_tf
from model.serving.connections import Connections
from model.serving.errors import brief, note
from model.serving.hosts import AllowedHosts
from model.serving.jobs.routes import routes as job_routes
from model.serving.model_config import read_model_config
from model.serving.models import Models
from model.serving.options import Options
from model.serving.ports import address
from model.serving.rpc import create_server
from model.serving.service import Service

_BACKLOG = 2048
_METRICS = ("/metrics", "/monitoring/prometheus/metrics")
_COLLECTED_OBJECTS = (50_000, 20, 20)


def create_app(service: Service, grpc_address: str) -> Starlette:
    """Returns the web application of a service."""

    def index(request: Request) -> Response:
        described = [
            {
                "model": store.name,
                "versions": store.versions,
                "labels": store.labels,
                "signatures": sorted(store.find().signatures),
            }
            for store in service.models.stores.values()
        ]
        return JSONResponse({**described[0], "grpc": grpc_address, "models": described})

    def health(request: Request) -> Response:
        return Response(b"ok\n", media_type="text/plain")

    def counters(request: Request) -> Response:
        return Response(service.metrics.text(), headers={"content-type": metrics.CONTENT_TYPE})

    async def not_found(request: Request, error: Exception) -> Response:
        return unknown(request) or JSONResponse({"error": brief(f"there is nothing at {request.url.path}")}, 404)

    async def wrong_method(request: Request, error: Exception) -> Response:
        message = f"{request.method} is not for {request.url.path}"
        return unknown(request) or JSONResponse({"error": brief(message)}, 405)

    def unknown(request: Request) -> Response | None:
        """What TensorFlow Serving answers below its own path, whatever is wrong there."""
        ours = request.url.path.startswith("/v1/") and not request.url.path.startswith("/v1/projects/")
        return rest_tf.API.response(rest_tf.malformed(request)) if ours else None

    routes = [
        Route("/", index, methods=["GET"]),
        Route("/healthz", health, methods=["GET"]),
        *(Route(path, counters, methods=["GET"]) for path in _METRICS),
        *rest_google.routes(service),
        *job_routes(service, service.jobs),
        *rest_kserve.routes(service),
        *rest_tf.routes(service),
    ]
    hosts = Middleware(AllowedHosts, hosts=(service.options.host, *service.options.allowed_hosts))
    return Starlette(routes=routes, middleware=[hosts], exception_handlers={404: not_found, 405: wrong_method})


def run(options: Options, listener: socket.socket, grpc_port: int) -> int:
    """Loads the models and serves them until told to stop.

    Args:
      options: the command line's.
      listener: REST's socket, bound.
      grpc_port: gRPC's port; 0 for any free one.

    Returns:
      The exit code: 0, or 1 if requests were still in flight when their time was over.

    Raises:
      ModelError: there is nothing to serve.
      OSError: gRPC's port cannot be bound.
    """
    terminal.log_to_stderr(logging.ERROR, "%(name)s: %(message)s")
    models = Models.of(options)
    models.load()
    # A large body makes millions of lists, among which the collector would look for garbage again and again.
    gc.freeze()
    gc.set_threshold(*_COLLECTED_OBJECTS)
    return asyncio.run(_serve(options, listener, grpc_port, Service(options, models)))


class _Server(uvicorn.Server):
    """uvicorn's server, which leaves signals alone: gRPC has to stop at the same time."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def _serve(options: Options, listener: socket.socket, grpc_port: int, service: Service) -> int:
    rpc = create_server(service)
    try:
        bound = rpc.add_insecure_port(address(options.host, grpc_port))
    except RuntimeError as error:
        raise OSError(f"gRPC cannot bind port {grpc_port}: {error}") from error
    connections = Connections(options)
    web = _Server(
        uvicorn.Config(
            create_app(service, address(options.host, bound)),
            http=connections,  # type: ignore[arg-type]
            ws="none",
            loop="asyncio",
            lifespan="off",
            log_config=None,
            access_log=False,
            backlog=_BACKLOG,
            timeout_keep_alive=math.ceil(options.idle_s),
        )
    )
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, _stop, stop)
    await rpc.start()
    serving = asyncio.create_task(web.serve(sockets=[listener]))
    while not web.started and not serving.done():
        await asyncio.sleep(0.005)
    looking = [asyncio.create_task(_look(service.models.refresh, options.poll_seconds))]
    if options.model_config_file is not None and options.model_config_poll_s:
        follow = ConfigFile(options, service.models)
        looking.append(asyncio.create_task(_look(follow, options.model_config_poll_s)))
    watching = asyncio.create_task(connections.watch())
    port = listener.getsockname()[1]
    say_ready(options, service.models, address(options.host, port), address(options.host, bound))
    await asyncio.wait([serving, asyncio.create_task(stop.wait())], return_when=asyncio.FIRST_COMPLETED)

    for task in looking:
        task.cancel()
    web.should_exit = True
    # Both refuse what is new at once. gRPC's grace ends after ours, which says what is unfinished.
    stopping = asyncio.create_task(rpc.stop(options.drain_s + 1))
    _, unfinished = await asyncio.wait([serving, stopping], timeout=options.drain_s)
    if unfinished and (service.in_flight or web.server_state.tasks):
        note(f"stopped with {max(service.in_flight, len(web.server_state.tasks))} requests unfinished")
        # A call of the model cannot be interrupted, and Python would wait for its thread.
        os._exit(1)
    service.close()
    for task in (watching, *unfinished):
        task.cancel()
    return 0


def _stop(stop: asyncio.Event) -> None:
    """Handles a signal: the first one lets requests finish, the second one does not."""
    if stop.is_set():
        note("stopped at once")
        os._exit(1)
    stop.set()


async def _look(look: Callable[[], None], seconds: float) -> None:
    """Looks for what is new, for ever."""
    while True:
        await asyncio.sleep(seconds)
        try:
            await asyncio.to_thread(look)
        except Exception as error:  # the versions that are loaded go on
            note(f"cannot look for versions: {type(error).__name__}: {error}")


class ConfigFile:
    """Watches the file that lists models: when it changes, so does what the server serves."""

    def __init__(self, options: Options, models: Models) -> None:
        self._options = options
        self._models = models
        self._wanted = options.models
        self._problem = ""

    def __call__(self) -> None:
        """Reads the file. One that is wrong, or not there, leaves the models as they are, and is told about once."""
        try:
            more = read_model_config(str(self._options.model_config_file))
            wanted = dataclasses.replace(self._options, more=more).models
        except (ModelError, OSError) as error:
            if str(error) != self._problem:
                note(f"the models stay as they are: {error}")
            self._problem = str(error)
            return
        self._problem = ""
        if wanted != self._wanted:
            self._wanted = wanted
            self._models.replace(wanted)


def say_ready(options: Options, models: Models, rest: str, rpc: str) -> None:
    """Tells where the server is, in one line on standard output."""
    versions = {name: store.versions for name, store in models.stores.items()}
    if options.json:
        name, served = next(iter(versions.items()))
        ready = {"ready": True, "rest": f"http://{rest}", "grpc": rpc, "model": name, "versions": served}
        terminal.print_line(json.dumps({**ready, "models": versions}))
    else:
        listed = "; ".join(f"model {name}, versions {', '.join(map(str, found))}" for name, found in versions.items())
        terminal.print_line(f"ready: {listed}, REST http://{rest}, gRPC {rpc}")
