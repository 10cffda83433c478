"""What honest queries look like, as numbers, and how unusual another one is against them (conformal p-values).

Balanced: at most 30 values of a client, so that one busy client is not the measure of all. A client with 60 values or
more has a baseline of its own besides, and must be unusual against both (Vovk, Gammerman & Shafer 2005).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from detectors.base import F64, I32, I64, U8, Page, StateError

PER_CLIENT = 30
OWN_FROM = 60
OWN_MOST = 500
"""Values of one client in its baseline, spread evenly over those collected: the first hour of a day is not the day."""
COLLECTED = 4 * OWN_MOST
"""Values of one client that are collected."""
MOST = 100_000
"""Values that are kept in all."""
CLIENTS = 1_000
"""Clients that are remembered by name."""
LEAST = 100
"""Balanced values without which there is no p-value worth the name."""
_PAGE = 1_024


class Calibration:
    """Values of honest queries by client: collected until `close`, then frozen."""

    def __init__(self) -> None:
        self.closed = False
        self._values: list[float] = []
        self._clients: list[str] = []
        self._of: dict[str, int] = {}
        self._usable = 0
        self._written = 0
        self._changed = False
        self.balanced: F64 = np.zeros(0)
        """Sorted values, at most 30 of a client; empty before `close`."""
        self.clients: tuple[str, ...] = ()
        """Whose values these are, most first; at most `CLIENTS`; empty before `close`."""
        self._own_names: dict[str, int] = {}
        self._own_values: F64 = np.zeros(0)
        """Values of the clients with baselines, one after the other, each client's sorted."""
        self._own_start: I64 = np.zeros(1, np.int64)
        self._prepare()

    @property
    def enough(self) -> bool:
        """Whether there are values enough to close."""
        return self._usable >= LEAST

    @property
    def missing(self) -> int:
        """Values that lack."""
        return max(0, LEAST - self._usable)

    def add(self, client: I32, clients: Sequence[str], values: F64) -> None:
        """Collect honest values; beyond the bounds they are let go."""
        for code, value in zip(client.tolist(), values.tolist(), strict=True):
            name = clients[code]
            count = self._of.get(name, 0)
            if count >= COLLECTED or len(self._values) >= MOST:
                continue
            self._of[name] = count + 1
            self._usable += count < PER_CLIENT
            self._clients.append(name)
            self._values.append(value)

    def close(self) -> None:
        """Freeze: from here on nothing moves the baseline."""
        by: dict[str, list[float]] = {}
        for name, value in zip(self._clients, self._values, strict=True):
            by.setdefault(name, []).append(value)
        self.balanced = np.sort(np.array([v for values in by.values() for v in values[:PER_CLIENT]]))
        self.clients = tuple(sorted(by, key=lambda name: (-len(by[name]), name))[:CLIENTS])
        own = {name: sorted(_spread(v, OWN_MOST)) for name, v in sorted(by.items()) if len(v) >= OWN_FROM}
        self._own_names = {name: i for i, name in enumerate(own)}
        self._own_values = np.array([v for values in own.values() for v in values], np.float64)
        self._own_start = np.cumsum([0, *map(len, own.values())]).astype(np.int64)
        self._values, self._clients, self._of = [], [], {}
        self.closed = self._changed = True
        self._prepare()

    def p_values(self, client: I32, clients: Sequence[str], values: F64, small: bool) -> F64:
        """(n,) conformal p-values: how many honest values are as small (or as large) as these."""
        p = _p(self.balanced, values, small)
        own, index = self.own(client, clients)
        if len(own):
            p[own] = np.maximum(p[own], self._own_p(index, values[own], small))
        return p

    def own(self, client: I32, clients: Sequence[str]) -> tuple[I64, I64]:
        """Rows of clients with a baseline of their own, and the index of each client."""
        if not self._own_names:
            return np.zeros(0, np.int64), np.zeros(0, np.int64)
        table = np.array([self._own_names.get(name, -1) for name in clients], np.int64)
        index = np.where(client >= 0, table[client], -1)
        rows = np.flatnonzero(index >= 0)
        return rows, index[rows]

    def own_means(self) -> F64:
        """Mean of each client's own values, in the order of their indices."""
        sums = np.concatenate([[0.0], np.cumsum(self._own_values)])
        count = np.diff(self._own_start)
        means: F64 = np.diff(sums[self._own_start]) / np.maximum(count, 1)
        return means

    def dirty(self) -> dict[str, Page]:
        """Pages changed since the last call."""
        pages: dict[str, Page] = {}
        if not self.closed:
            for k in range(self._written // _PAGE, -(-len(self._values) // _PAGE)):
                if len(self._values) > self._written:
                    at = slice(k * _PAGE, (k + 1) * _PAGE)
                    values = np.array(self._values[at], np.float64)
                    pages[f"honest{k}"] = {"values": values, "clients": names_array(self._clients[at])}
            self._written = len(self._values)
        elif self._changed:
            self._changed = False
            nothing: Page = {"values": np.zeros(0), "clients": names_array([])}
            pages = {f"honest{k}": nothing for k in range(-(-self._written // _PAGE))}
            pages["frozen"] = {
                "balanced": self.balanced,
                "names": names_array(list(self._own_names)),
                "clients": names_array(self.clients),
                "own": self._own_values,
                "start": self._own_start,
            }
        return pages

    def restore(self, pages: Mapping[str, Page]) -> None:
        """Take the state of an equal calibration. StateError when the pages do not fit."""
        frozen = pages.get("frozen")
        if frozen is None:
            for k in range(sum(name.startswith("honest") for name in pages)):
                page = pages[f"honest{k}"]
                names = array_names(page["clients"])
                if page["values"].shape != (len(names),):
                    raise StateError(
                        f"a page of honest values has {page['values'].shape} values of {len(names)} clients"
                    )
                codes = np.arange(len(names), dtype=np.int32)
                self.add(codes, names, page["values"].astype(np.float64))
            self._written = len(self._values)
            return
        names = array_names(frozen["names"])
        if frozen["start"].shape != (len(names) + 1,) or frozen["balanced"].ndim != 1:
            raise StateError(f"stored baselines are of {frozen['start'].shape} clients, not of {len(names)}")
        self.balanced = frozen["balanced"].astype(np.float64)
        self._own_names = {name: i for i, name in enumerate(names)}
        self._own_values, self._own_start = frozen["own"].astype(np.float64), frozen["start"].astype(np.int64)
        self.clients = tuple(array_names(frozen["clients"]))
        self.closed = True
        self._prepare()

    def _prepare(self) -> None:
        """Ranks of all own values as one sorted column: one search then serves every client."""
        self._ranks, inverse = np.unique(self._own_values, return_inverse=True)
        client = np.repeat(np.arange(len(self._own_start) - 1), np.diff(self._own_start))
        self._keys: I64 = client * (len(self._ranks) + 1) + inverse

    def _own_p(self, index: I64, values: F64, small: bool) -> F64:
        count = np.diff(self._own_start)[index]
        rank = np.searchsorted(self._ranks, values, side="right" if small else "left")
        below = np.searchsorted(self._keys, index * (len(self._ranks) + 1) + rank) - self._own_start[index]
        p: F64 = ((below if small else count - below) + 1) / (count + 1)
        return p


def _spread(values: Sequence[float], most: int) -> Sequence[float]:
    """At most so many of them, evenly."""
    n = len(values)
    return values if n <= most else [values[i * n // most] for i in range(most)]


def _p(honest: F64, values: F64, small: bool) -> F64:
    m = len(honest)
    side: Literal["left", "right"] = "right" if small else "left"
    below = np.searchsorted(honest, values, side=side)
    p: F64 = ((below if small else m - below) + 1) / (m + 1)
    return p


def names_array(words: Sequence[str]) -> U8:
    """Names as an array of bytes, for a page."""
    return np.frombuffer("\0".join(words).encode("utf-8", "surrogatepass"), np.uint8).copy()


def array_names(page: U8) -> list[str]:
    """The names that `names_array` took."""
    raw = page.astype(np.uint8).tobytes().decode("utf-8", "surrogatepass")
    return raw.split("\0") if raw else []
