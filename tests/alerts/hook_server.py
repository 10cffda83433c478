"""A local webhook receiver that fails in every way."""

from __future__ import annotations

import base64
import json
import socket
import threading
from dataclasses import dataclass, field

SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
Headers = dict[str, str]


def status(code: int, more: str = "") -> bytes:
    return f"HTTP/1.1 {code} Some\r\n{more}Content-Length: 0\r\n\r\n".encode()


@dataclass
class Receiver:
    """A server that does to each POST what `plan` says, then accepts. Bytes: the answer; `hang`, `drip`: never ends;
    `before`, `after`, `cut`: closes before reading, after it, or within its answer."""

    plan: list[bytes | str] = field(default_factory=list)
    seen: list[tuple[Headers, bytes]] = field(default_factory=list)
    accepted: list[tuple[Headers, bytes]] = field(default_factory=list)
    stopping: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.connections = 0
        threading.Thread(target=self._serve, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook?a=b"

    def close(self) -> None:
        self.stopping.set()
        self.listener.close()

    def keys(self) -> list[str]:
        return [headers["webhook-id"] for headers, _ in self.accepted]

    def types(self, incident: str) -> list[str]:
        bodies = [json.loads(body) for _, body in self.accepted]
        return [b["type"].removeprefix("incident.") for b in bodies if b["data"]["id"] == incident]

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._talk, args=(connection,), daemon=True).start()

    def _talk(self, connection: socket.socket) -> None:
        with connection:
            try:
                while not self.stopping.is_set() and self._one(connection):
                    pass
            except OSError:
                return

    def _one(self, connection: socket.socket) -> bool:
        if self.plan and self.plan[0] == "before":
            self.plan.pop(0)
            return False
        stream = connection.makefile("rb")
        if not stream.readline():
            return False
        headers: Headers = {}
        while (line := stream.readline().decode().strip()) != "":
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        post = headers, stream.read(int(headers["content-length"]))
        self.seen.append(post)
        answer = self.plan.pop(0) if self.plan else OK
        if answer == "cut":
            connection.sendall(status(200)[:20])
            return False
        if isinstance(answer, bytes):
            if answer.startswith(b"HTTP/1.1 2"):
                self.accepted.append(post)
            connection.sendall(answer)
            return True
        while answer in ("hang", "drip") and not self.stopping.wait(0.02):
            connection.sendall(b"" if answer == "hang" else b"H"[:1])
        return False
