"""Passes gRPC's bytes on as a proxy, so that tests can lose, change and withhold what goes through it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc

Change = Callable[[str, bytes], bytes]
"""(method, message) -> the message to pass on."""


class LostError(Exception):
    """The connection is lost, or ends with another code."""

    def __init__(self, code: grpc.StatusCode = grpc.StatusCode.UNAVAILABLE, message: str = "lost") -> None:
        self.code = code
        super().__init__(message)


class Proxy:
    """In front of a server; can be stopped, and started again at the same address.

    Attributes:
      host: its address.
      on_request: changes requests.
      on_answer: changes answers; raises LostError for those that the caller is not to have.
    """

    def __init__(self, target: str) -> None:
        self._target = target
        self.host = ""
        self.on_request: Change = lambda method, message: message
        self.on_answer: Change = lambda method, message: message
        self.start()

    def start(self) -> None:
        """Listens."""
        whole = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
        self._channel = grpc.insecure_channel(self._target, whole)
        self._server = grpc.server(ThreadPoolExecutor(32), options=[*whole, ("grpc.so_reuseport", 0)])
        self._server.add_generic_rpc_handlers((_Handler(self, self._channel),))
        port = self._server.add_insecure_port(self.host or "127.0.0.1:0")
        self.host = f"127.0.0.1:{port}"
        self._server.start()

    def stop(self) -> None:
        """Ends all calls, and refuses connections."""
        self._server.stop(0).wait()
        self._channel.close()


class _Handler(grpc.GenericRpcHandler):
    def __init__(self, proxy: Proxy, channel: grpc.Channel) -> None:
        self._proxy = proxy
        self._channel = channel

    def service(self, details: Any) -> Any:
        method = details.method

        def passed(requests: Iterator[bytes], context: Any) -> Iterator[bytes]:
            changed = (self._proxy.on_request(method, request) for request in requests)
            # A call with one message each way looks like one with many.
            call = self._channel.stream_stream(method)(changed, metadata=context.invocation_metadata())
            context.add_callback(call.cancel)
            try:
                for answer in call:
                    yield self._proxy.on_answer(method, answer)
            except LostError as lost:
                call.cancel()
                context.abort(lost.code, str(lost))
            except grpc.RpcError as error:
                context.abort(error.code(), error.details() or "")

        return grpc.stream_stream_rpc_method_handler(passed)


@contextlib.contextmanager
def proxy_to(target: str) -> Iterator[Proxy]:
    """A proxy that ends with the block."""
    proxy = Proxy(target)
    try:
        yield proxy
    finally:
        proxy.stop()
