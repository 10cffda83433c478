"""Whom a chain of proxies was asked by: the X-Forwarded-For header, read from the end that can be believed.

Every proxy appends the address it was asked from. What stands to the left of the first proxy of ours was written by
the caller, who may write anything: only the right-most address that is no proxy of ours is believed.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

from monitor.intake.identity import parse_address

NAMES = frozenset({"x_forwarded_for", "http_x_forwarded_for"})
"""Headers and fields that hold such a chain: in lower case, with underscores for hyphens."""
MOST_HOPS = 64
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def holds_chain(name: str) -> bool:
    """Whether a header or a field of this name holds a chain of addresses."""
    return name.lower().replace("-", "_") in NAMES


def caller(chain: str, trusted: Sequence[Network]) -> str | None:
    """The address behind the trusted proxies; of a chain of nothing but these, where it begins.

    None where that hop is no address ("unknown", an obfuscated name) or the chain is longer than any honest one.
    """
    hops = chain.split(",", MOST_HOPS)
    if len(hops) > MOST_HOPS:
        return None
    for hop in reversed(hops):
        address = parse_address(_bare(hop))
        if address is None:
            return None
        if not any(address in network for network in trusted):
            return str(address)
    return str(address)


def _bare(hop: str) -> str:
    """A hop without quotes and port: proxies write 1.2.3.4, 1.2.3.4:567, "[2001:db8::1]:567" and 2001:db8::1."""
    text = hop.strip().strip('"')
    if text.startswith("["):
        return text[1:].partition("]")[0]
    return text.partition(":")[0] if text.count(":") == 1 else text
