"""send-test-alert against local servers: what arrives, and what is said of each receiver."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import pytest
import standardwebhooks

if TYPE_CHECKING:
    from tests.monitor.cli.conftest import Place

SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()


class Server(ThreadingHTTPServer):
    """Keeps what is posted; `/broken` answers 500."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.posts: list[tuple[str, dict[str, str], bytes]] = []


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.posts.append((self.path, {k.lower(): v for k, v in self.headers.items()}, body))
        self.send_response(500 if self.path.startswith("/broken") else 200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    thread = threading.Thread(target=made.serve_forever, args=(0.05,))
    thread.start()
    yield made
    made.shutdown()
    thread.join()
    made.server_close()


def receivers(place: Place, text: str) -> None:
    (place.directory / "hook.secret").write_text(SECRET, encoding="ascii")
    place.config.write_text(place.config.read_text() + text)


def test_each_receiver_gets_one_and_is_named(place: Place, server: Server) -> None:
    at = f"http://127.0.0.1:{server.server_port}"
    receivers(
        place,
        f"""\
notify: off
routes: [{{receiver: am, severity: critical}}]
receivers:
  am: {{type: alertmanager, urls: ["{at}/am"]}}
  hook: {{type: webhook, url: "{at}/hook", secret_file: hook.secret, allow_private: true}}
""",
    )
    result = place.run("send-test-alert")
    assert result.exit_code == 0, result.stdout + result.stderr
    lines = result.stdout.splitlines()
    assert lines[0].startswith("ok      am: 1 of 1") and lines[1].startswith("ok      hook: 127.0.0.1: ")
    (path, _, alerts), *hook = server.posts
    assert path == "/am/api/v2/alerts" and json.loads(alerts)[0]["labels"]["test"] == "true"
    for (path, headers, body), kind in zip(hook, ("opened", "resolved"), strict=True):
        message = standardwebhooks.Webhook(SECRET).verify(body, headers)
        assert (path, message["type"]) == ("/hook", f"incident.{kind}")
        assert "test" in message["data"]["why"]


def test_one_that_fails_is_named_and_the_others_are_tried(place: Place, server: Server) -> None:
    at = f"http://127.0.0.1:{server.server_port}"
    receivers(
        place,
        f"""\
receivers:
  broken: {{type: webhook, url: "{at}/broken", allow_private: true}}
  nosecret: {{type: webhook, url: "{at}/x", secret_file: absent, allow_private: true}}
  gone: {{type: alertmanager, urls: ["http://127.0.0.1:9"]}}
  well: {{type: webhook, url: "{at}/well", allow_private: true}}
""",
    )
    result = place.run("send-test-alert", "--output", "json")
    assert result.exit_code == 1
    shown = {row["receiver"]: row for row in json.loads(result.stdout)}
    assert {name: row["ok"] for name, row in shown.items()} == {
        "broken": False, "nosecret": False, "gone": False, "well": True,
    }  # fmt: skip
    assert "answered 500" in shown["broken"]["detail"]
    assert "secret_file" in shown["nosecret"]["detail"]
    assert "not signed" in shown["well"]["detail"]
    assert [path for path, _, _ in server.posts] == ["/broken", "/well", "/well"]


def test_without_receivers_it_fails(place: Place) -> None:
    result = place.run("send-test-alert")
    assert result.exit_code == 1 and "there are no receivers" in result.stderr
