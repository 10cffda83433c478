"""/metrics, /-/healthy and /-/ready, served from a thread of their own. They read flags and metrics, never state."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from contextlib import suppress

import uvicorn
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from monitor.metrics import Metrics

Probe = Callable[[], tuple[bool, str]]
"""Answers whether all is well, and one line that says why not."""


class ServeError(Exception):
    """The address cannot be listened on. The text names the address and the mend."""


def make_app(metrics: Metrics, healthy: Probe, ready: Probe) -> Starlette:
    """The HTTP application."""

    def show_metrics(_: Request) -> Response:
        return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)

    def probe(check: Probe) -> Callable[[Request], Response]:
        def answer(_: Request) -> Response:
            ok, text = check()
            return PlainTextResponse(f"{text}\n", status_code=200 if ok else 503)

        return answer

    paths = {"/-/healthy": healthy, "/healthz": healthy, "/-/ready": ready, "/readyz": ready}
    routes = [Route(path, probe(check)) for path, check in paths.items()]
    return Starlette(routes=[Route("/metrics", show_metrics), *routes])


class HttpServer:
    """uvicorn in a daemon thread. `address` is (host, port); port 0 takes a free one."""

    def __init__(self, app: Starlette, host: str, port: int) -> None:
        try:
            self._socket = socket.create_server((host, port), family=_family(host), reuse_port=False)
        except OSError as error:
            raise ServeError(
                f"cannot listen on {host}:{port} ({error.strerror}): set api.listen to a free address"
            ) from error
        self.address: tuple[str, int] = self._socket.getsockname()[:2]
        config = uvicorn.Config(app, log_config=None, access_log=False, lifespan="off")
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._run, name="http", daemon=True)

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def stop(self, timeout: float = 5.0) -> None:
        """Stop answering and free the port."""
        self._server.should_exit = True
        self._thread.join(timeout)
        with suppress(OSError):
            self._socket.close()

    def _run(self) -> None:
        self._server.run(sockets=[self._socket])


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET
