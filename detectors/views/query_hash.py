"""View "query_hash": a 64-bit hash of every event's input, so that exact repeats are known for what they are.

Integers and floats of the same value hash alike; missing, mistyped and non-finite cells hash as what they are. The
hash is keyed by the reference, which clients do not see.
"""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt

from detectors.base import Batch, Category, Views, view
from detectors.reference import Reference

U64 = npt.NDArray[np.uint64]
_A, _B = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)


class QueryHash:
    """Hashes the input columns of one model. `decimals` (d,) rounds numbers first, where given."""

    def __init__(self, reference: Reference, decimals: npt.NDArray[np.int64] | None = None) -> None:
        rows = reference.rows
        seed = hashlib.blake2b(reference.version.encode(), digest_size=32, person=b"query hash").digest()
        rng = np.random.default_rng(np.frombuffer(seed, np.uint32))
        width = len(rows.numeric.names) + len(rows.category.names)
        self._salt: U64 = rng.integers(1, 2**63, width, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
        self._scale = None if decimals is None else 10.0 ** decimals.astype(np.float64)
        self._words: dict[str, int] = {}
        known = zip(rows.category.vocabulary, rows.category.known, strict=True)
        self._known = [np.array([self._word(w) for w in words[:n]], np.uint64) for words, n in known]

    def of(self, batch: Batch) -> U64:
        """(n,) uint64."""
        values = batch.numeric.values
        if self._scale is not None:
            with np.errstate(over="ignore"):
                scaled = np.rint(values * self._scale)
            values = np.where(np.abs(scaled) < 2.0**52, scaled / self._scale, values)
        # Adding 0.0 makes -0.0 and 0.0 one.
        bits = (values + 0.0).view(np.uint64) + batch.numeric.status.astype(np.uint64)
        numbers = len(batch.numeric.names)
        total: U64 = (mixed(bits + self._salt[:numbers]) * self._salt[:numbers]).sum(axis=1, dtype=np.uint64)
        for j in range(len(batch.category.names)):
            salt = self._salt[numbers + j]
            total = total + mixed(self._category(batch.category, j) + salt) * salt
        return mixed(total)

    def _category(self, category: Category, j: int) -> U64:
        """Hashes of the words behind the codes of column `j`; codes below zero hash as themselves."""
        known, words = self._known[j], category.vocabulary[j]
        late = np.array([self._word(w) for w in words[len(known) :]], np.uint64)
        missing = np.arange(3, dtype=np.uint64)
        return np.concatenate([known, late, missing])[category.codes[:, j]]

    def _word(self, word: str) -> int:
        found = self._words.get(word)
        if found is None:
            found = int.from_bytes(hashlib.blake2b(word.encode("utf-8", "replace"), digest_size=8).digest())
            if len(self._words) < 100_000:
                self._words[word] = found
        return found


@view("query_hash")
def _query_hash(views: Views) -> U64:
    cache = views.context.cache
    if "query_hash" not in cache:
        cache["query_hash"] = QueryHash(views.context.reference)
    made: QueryHash = cache["query_hash"]
    return made.of(views.batch)


def mixed(x: U64) -> U64:
    """Steele's SplitMix64 finaliser, elementwise and modulo 2^64."""
    x = (x ^ (x >> np.uint64(30))) * _A
    x = (x ^ (x >> np.uint64(27))) * _B
    return x ^ (x >> np.uint64(31))
