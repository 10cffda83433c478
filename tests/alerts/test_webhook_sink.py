"""One POST: how it is signed, where it may go, and when it ends."""

from __future__ import annotations

import base64
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import standardwebhooks

from alerts.sinks import webhook as sink
from alerts.sinks.alertmanager import DeliveryError
from alerts.sinks.webhook import Webhook
from tests.alerts.hook_server import SECRET, Receiver


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sink, "TIMEOUT", 0.4)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.close()


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    path = tmp_path / "hook.secret"
    path.write_text(SECRET + "\n", encoding="ascii")
    return path


def test_more_than_one_secret_signs(receiver: Receiver, tmp_path: Path) -> None:
    second = "whsec_" + base64.b64encode(b"s" * 24).decode()
    (tmp_path / "two").write_text(f"{SECRET}\n{second}\n", encoding="ascii")
    Webhook(receiver.url, tmp_path / "two", allow_private=True).post("msg_1", b'{"a": 1}', time.time())
    headers, body = receiver.seen[0]
    for secret in (SECRET, second):
        assert standardwebhooks.Webhook(secret).verify(body, headers) == {"a": 1}


def test_the_signature_does_not_depend_on_the_zone(
    receiver: Receiver, secret: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        Webhook(receiver.url, secret, allow_private=True).post("msg_1", b"{}", time.time())
        headers, body = receiver.seen[0]
        standardwebhooks.Webhook(SECRET).verify(body, headers)
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize(
    "content", ["", "secret", SECRET[6:], "whsec_c2hvcnQ=", "whsec_!" + SECRET[6:], "whsec_\u00e9"]
)
def test_a_secret_that_cannot_be_used_sends_nothing(content: str, receiver: Receiver, tmp_path: Path) -> None:
    (tmp_path / "bad").write_text(content, encoding="utf-8")
    with pytest.raises(DeliveryError, match="secret_file") as caught:
        Webhook(receiver.url, tmp_path / "bad", allow_private=True).post("msg_1", b"{}", 1.0)
    assert receiver.connections == 0
    assert not content[6:] or content[6:] not in str(caught.value)


PRIVATE = [
    "127.0.0.1", "2130706433", "0x7f000001", "127.1", "localhost", "0.0.0.0", "10.1.2.3", "169.254.169.254",
    "192.168.0.1", "100.64.0.1", "224.0.0.1", "[::1]", "[::]", "[::ffff:127.0.0.1]", "[::127.0.0.1]", "[fe80::1]",
    "[fd00::1]", "[64:ff9b::7f00:1]", "[2002:7f00:1::]", "[ff02::1]", "[fec0::1]",
]  # fmt: skip


@pytest.mark.parametrize("host", PRIVATE)
def test_private_addresses_are_refused(host: str, receiver: Receiver) -> None:
    with pytest.raises(DeliveryError, match=r"allow_private|cannot be resolved"):
        Webhook(f"http://{host}:{receiver.port}/").post("msg_1", b"{}", 1.0)
    assert receiver.connections == 0


def test_a_name_is_looked_up_once_and_all_its_addresses_are_checked(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = [["8.8.8.8"], ["8.8.8.8", "127.0.0.1"]]
    connected: list[str] = []

    def look_up(*_: object, **__: object) -> list[tuple[int, int, int, str, tuple[str, int]]]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (ip, 80)) for ip in answers.pop(0)]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)

    def connect(address: tuple[str, int], *_: object, **__: object) -> socket.socket:
        connected.append(address[0])
        raise OSError("no network here")

    monkeypatch.setattr(socket, "create_connection", connect)
    endpoint = Webhook("http://rebinding.example/")
    with pytest.raises(DeliveryError):
        endpoint.post("msg_1", b"{}", 1.0)
    assert connected == ["8.8.8.8"] and len(answers) == 1
    with pytest.raises(DeliveryError, match="allow_private"):
        endpoint.post("msg_1", b"{}", 1.0)
    assert connected == ["8.8.8.8"]


def test_the_host_header_is_the_name(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    place = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", receiver.port))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *a, **k: [place])
    Webhook(f"http://hook.example:{receiver.port}/", allow_private=True).post("msg_1", b"{}", 1.0)
    assert receiver.seen[0][0]["host"] == f"hook.example:{receiver.port}"


@pytest.mark.parametrize(
    "plan", ["hang", "drip", b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n" + b"x" * 9_000]
)
def test_a_post_ends_in_time(plan: bytes | str, receiver: Receiver) -> None:
    receiver.plan = [plan]
    begin = time.monotonic()
    try:
        answer = Webhook(receiver.url, allow_private=True).post("msg_1", b"{}", 1.0)
        assert answer.status == 200 and len(answer.text) <= 200
    except DeliveryError:
        assert isinstance(plan, str)
    assert time.monotonic() - begin < 3 * sink.TIMEOUT
