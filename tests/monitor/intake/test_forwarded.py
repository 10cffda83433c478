"""The caller behind a chain of proxies."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.intake.events import Record
from monitor.intake.formats.base import TopicRules
from monitor.intake.forwarded import MOST_HOPS, caller, holds_chain
from monitor.intake.identity import Pseudonyms

OURS = tuple(ipaddress.ip_network(n) for n in ("10.0.0.0/8", "2001:db8:1::/48"))


@pytest.mark.parametrize(
    ("chain", "client"),
    [
        ("203.0.113.9", "203.0.113.9"),
        ("203.0.113.9, 10.0.0.4", "203.0.113.9"),
        ("1.1.1.1, 203.0.113.9,10.0.0.4 , 10.9.9.9", "203.0.113.9"),  # 1.1.1.1 was written by the caller
        ("10.0.0.7, 10.0.0.4", "10.0.0.7"),
        ("203.0.113.9:4711, 10.0.0.4:80", "203.0.113.9"),
        ('"[2001:db8:2::9]:4711", 2001:db8:1::1', "2001:db8:2::9"),
        ("::ffff:203.0.113.9, ::ffff:10.0.0.4", "203.0.113.9"),
        ("203.0.113.9, unknown, 10.0.0.4", None),
        ("_hidden, 10.0.0.4", None),
        ("", None),
        (" , 10.0.0.4", None),
        ("203.0.113.9," + "10.0.0.4," * MOST_HOPS + "10.0.0.4", None),
    ],
)
def test_the_last_address_that_is_no_proxy_of_ours(chain: str, client: str | None) -> None:
    assert caller(chain, OURS) == client


def test_without_trusted_proxies_only_the_last_hop_is_believed() -> None:
    assert caller("1.1.1.1, 203.0.113.9", ()) == "203.0.113.9"


@given(st.text(max_size=60))
def test_what_the_caller_writes_before_his_address_changes_nothing(written: str) -> None:
    assert caller(f"{written},203.0.113.9, 10.0.0.4", OURS) in ("203.0.113.9", None)
    if written.count(",") < MOST_HOPS - 3:
        assert caller(f"{written},203.0.113.9, 10.0.0.4", OURS) == "203.0.113.9"


@given(st.text(max_size=200))
def test_any_text_is_read(chain: str) -> None:
    found = caller(chain, OURS)
    assert found is None or str(ipaddress.ip_address(found)) == found


@pytest.mark.parametrize(("name", "holds"), [("X-Forwarded-For", True), ("x_forwarded_for", True), ("client", False)])
def test_names_of_chains(name: str, holds: bool) -> None:
    assert holds_chain(name) is holds


def test_the_client_of_a_topic_is_the_caller_and_a_chain_without_one_falls_through() -> None:
    rules = TopicRules(
        "t", Pseudonyms(b"", plain=True), client_from=("header:X-Forwarded-For", "field:meta.x_forwarded_for", "key"),
        trusted_proxies=OURS,
    )  # fmt: skip

    def client(header: bytes, field: str) -> str | None:
        record = Record("t", 0, 0, 0.0, b"who", b"", [("x-forwarded-for", header)])
        return rules.take_client(record, {"meta": {"x_forwarded_for": field}})

    assert client(b"203.0.113.9, 10.0.0.4", "198.51.100.1") == "203.0.113.9"
    assert client(b"unknown", "198.51.100.1, 10.0.0.4") == "198.51.100.1"
    assert client(b"unknown", "-") == "who"
