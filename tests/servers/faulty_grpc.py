"""Stands before a gRPC model server as a proxy and fails by a seeded schedule: faulty.py, over gRPC."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc

from tests.servers.faulty import Faults, Proxy
from tests.servers.misaligned import without_last_row

GRPC_KINDS = {
    "unavailable": "UNAVAILABLE",
    "quota": "RESOURCE_EXHAUSTED",
    "stall": "no answer for `stall_seconds`, then DEADLINE_EXCEEDED",
    "answer_lost": "the server predicts, then UNAVAILABLE",
    "truncated": "a message that lacks its last byte",
    "misaligned": "a PredictResponse of one row less",
}


@contextlib.contextmanager
def faulty_grpc(upstream: str, faults: Faults) -> Iterator[Proxy]:
    """A proxy before the gRPC server at `upstream` (host:port)."""
    proxy = _GrpcProxy(upstream, faults)
    try:
        yield proxy
    finally:
        proxy.stop()


class _GrpcProxy(Proxy, grpc.GenericRpcHandler):
    def __init__(self, upstream: str, faults: Faults) -> None:
        super().__init__(faults, GRPC_KINDS)
        sizes = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
        self._channel = grpc.insecure_channel(upstream, [*sizes, ("grpc.enable_http_proxy", 0)])
        self._options = [*sizes, ("grpc.so_reuseport", 0)]
        self._stopped = threading.Event()
        self._undertaker = ThreadPoolExecutor(1)
        self._port = 0
        self._listen()
        self.url = f"127.0.0.1:{self._port}"

    def stop(self) -> None:
        self._stopped.set()
        self._undertaker.shutdown()
        self._server.stop(None).wait()
        self._channel.close()

    def _listen(self) -> None:
        # A stalled call takes a thread.
        self._server = grpc.server(ThreadPoolExecutor(64), handlers=[self], options=self._options)
        self._port = self._server.add_insecure_port(f"127.0.0.1:{self._port}")
        self._server.start()

    def _die(self) -> None:
        self._server.stop(None).wait()
        self._count("died")
        self._stopped.wait(self.faults.down_seconds)
        if not self._stopped.is_set():
            self._listen()
            self._count("came_back")

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        """How any method is answered: bytes as they are."""
        method = handler_call_details.method

        def answer(request: bytes, context: grpc.ServicerContext) -> bytes:
            if not method.endswith("/Predict"):
                return self._pass_on(method, request, context)
            with self._prediction() as fate:
                return self._predict(method, request, context, fate)

        return grpc.unary_unary_rpc_method_handler(answer)

    def _predict(self, method: str, request: bytes, context: grpc.ServicerContext, fate: str) -> bytes:
        if fate == "died":
            self._undertaker.submit(self._die)
            _wait(context, None)
            context.abort(grpc.StatusCode.UNAVAILABLE, "the server dies")
        if fate in _CODES:
            self._count(fate)
            if fate == "stall":
                _wait(context, self.faults.stall_seconds)
            context.abort(_CODES[fate], f"{fate}, as planned")
        try:
            answer = self._pass_on(method, request, context)
        except Exception:
            self._passed(fate)
            raise
        if not context.is_active():
            self._count("dropped")
            return answer
        if fate == "answer_lost":
            self._count(fate)
            context.abort(grpc.StatusCode.UNAVAILABLE, "the answer is lost")
        changes: dict[str, Callable[[bytes], bytes | None]] = {
            "truncated": lambda message: message[:-1],
            "misaligned": without_last_row,
        }
        changed = changes[fate](answer) if fate in changes else None
        if changed is None:
            self._passed(fate)
            return answer
        self._count(fate)
        return changed

    def _pass_on(self, method: str, request: bytes, context: grpc.ServicerContext) -> bytes:
        metadata = [pair for pair in context.invocation_metadata() if not pair[0].startswith(("grpc-", "user-agent"))]
        try:
            return bytes(self._channel.unary_unary(method)(request, metadata=metadata))
        except grpc.RpcError as error:
            context.abort(error.code(), error.details())
            raise


def _wait(context: grpc.ServicerContext, seconds: float | None) -> None:
    """Until then, or until the call ends."""
    ended = threading.Event()
    if context.add_callback(ended.set):
        ended.wait(seconds)


_CODES: dict[str, grpc.StatusCode] = {
    "unavailable": grpc.StatusCode.UNAVAILABLE,
    "quota": grpc.StatusCode.RESOURCE_EXHAUSTED,
    "stall": grpc.StatusCode.DEADLINE_EXCEEDED,
}
