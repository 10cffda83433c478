from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detectors.base import F64, StateError
from detectors.moves.asked import Asked
from detectors.moves.honest import queries_of
from detectors.moves.looks import look_of
from detectors.moves.trail import Named, Trail
from tests.detectors.moves.worlds import CENTRE, WIDTH, asked, honest, honest_rows, scale, trail

LEAST = math.log(1e6)


def follow(queries: Asked, made: Trail | None = None) -> tuple[Trail, Named | None, int]:
    """Feed queries until they name the client; how many it took."""
    made = made or trail()
    for i, q in enumerate(queries_of(queries, scale(), honest())):
        list(made.take([q], [bool(queries.honest[i])]))
        named = made.named(LEAST)
        if named is not None:
            return made, named, i + 1
    return made, None, len(queries)


def bisections(n: int, seed: int) -> F64:
    """A boundary search: between two far records, halving the way, n times."""
    rng = np.random.default_rng(seed)
    low, high = rng.uniform(20, 80, (2, WIDTH))
    rows = [low, high]
    for _ in range(n):
        middle = (low + high) / 2
        rows.append(middle)
        low, high = (middle, high) if rng.random() < 0.5 else (low, middle)
    return np.array(rows)


def differences(rows: int, h: float) -> F64:
    """Finite differences around some honest records: every field up and down."""
    out = []
    for base in honest_rows(rows, 5):
        out.append(base)
        for j in range(WIDTH):
            for sign in (h, -h):
                moved = base.copy()
                moved[j] += sign
                out.append(moved)
    return np.array(out)


def test_an_honest_client_is_not_named() -> None:
    made, named, _ = follow(asked(honest_rows(400, 3), -0.1))
    assert named is None and made.heads > 300


def test_lines_between_own_queries_name_a_boundary_search() -> None:
    _, named, n = follow(asked(bisections(30, 1)))
    assert named is not None and named.evidence == "line" and n < 15 and named.hits >= 5


@pytest.mark.parametrize(("h", "evidence"), [(0.0005, "probe"), (1.0, "twin")])
def test_differences_name_an_estimate_of_a_gradient(h: float, evidence: str) -> None:
    _, named, n = follow(asked(differences(4, h)))
    assert named is not None and named.evidence == evidence and n < 25


def test_a_pair_mirrored_in_all_fields_is_seen() -> None:
    rng = np.random.default_rng(3)
    base = honest_rows(1, 9)[0]
    rows = [base]
    for _ in range(40):
        h = rng.normal(size=WIDTH)
        rows += [base + h, base - h]
    _, named, _ = follow(asked(np.array(rows)))
    assert named is not None and named.evidence in ("mirror", "line")


def test_flips_between_near_queries_name_a_walk_along_the_boundary() -> None:
    rng = np.random.default_rng(4)
    step = rng.normal(size=(120, WIDTH)) * 0.05
    rows = CENTRE + np.cumsum(step - step.mean(axis=1, keepdims=True), axis=0)
    rows += (np.arange(120) % 2 * 2 - 1)[:, None] * 0.02
    _, named, _ = follow(asked(rows))
    assert named is not None and named.evidence == "flip"


def test_one_record_swept_field_by_field_is_named_and_a_form_filled_in_is_not() -> None:
    base = honest_rows(1, 6)[0]
    rows = np.repeat(base[None], 80, axis=0)
    rows[np.arange(80), np.arange(80) % WIDTH] += 12.0 + np.arange(80) * 0.7
    queries = asked(rows)
    queries.label[:], queries.margin[:] = 1, 0.5
    _, named, n = follow(queries)
    assert named is not None and named.evidence == "sweep" and n >= 60
    assert follow(asked(rows[:12]))[1] is None


def test_evidence_of_one_origin_counts_once() -> None:
    """Two hundred frames of one odd scene weigh like one query; two hundred odd records do not."""
    rng = np.random.default_rng(7)
    frames = CENTRE + np.linspace(0, 20, WIDTH) + rng.normal(size=(200, WIDTH)) * 0.02
    made, named, _ = follow(asked(frames, 2.0))
    assert named is None and made.heads < 8
    assert look_of(made).kind == "steady"
    _, named, n = follow(asked(rng.uniform(20, 80, (200, WIDTH)), 2.0))
    assert named is not None and n == 8  # not before eight origins


def test_the_same_data_on_another_scale_is_excused_and_random_data_is_not() -> None:
    made, named, _ = follow(asked(honest_rows(200, 8) * 1.8 + 13, 2.0))
    assert named is None and made.rescaled and look_of(made).kind == "rescaled"
    rng = np.random.default_rng(9)
    shuffled = rng.permuted(honest_rows(200, 8), axis=0)
    assert follow(asked(shuffled, 2.0))[1] is not None


def test_mixtures_of_records_are_named_and_finer_numbers_alone_are_not() -> None:
    rng = np.random.default_rng(10)
    a, b = honest_rows(300, 11), honest_rows(300, 12)
    w = rng.uniform(0.3, 0.7, (300, 1))
    # Of this population, linear as it is, mixtures are rescaled records: columns are shuffled to break that.
    _, named, _ = follow(asked(rng.permuted(w * a + (1 - w) * b, axis=0)))
    assert named is not None and named.evidence == "grid"
    finer = honest_rows(300, 13) + rng.uniform(-0.004, 0.004, (300, WIDTH))
    assert follow(asked(finer))[1] is None


def test_variations_of_a_hidden_record_are_one_thread() -> None:
    rng = np.random.default_rng(14)
    hidden = honest_rows(1, 15)[0]
    other = honest_rows(120, 16)
    rows = np.where(rng.random((120, WIDTH)) < 0.6, hidden, other)
    made, named, _ = follow(asked(rows, 0.4))
    assert named is None and made.heads < 40 and look_of(made).kind == "variations"


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 5), st.integers(1, 150), st.sampled_from(["honest", "line", "edit", "mask"]))
def test_restored_it_goes_on_as_if_nothing_had_been(seed: int, cut: int, what: str) -> None:
    rows = honest_rows(160, seed)
    if what == "line":
        rows = np.concatenate([bisections(18, seed + k) for k in range(8)])
    elif what == "edit":
        rows = differences(10, 1.0)[:160]
    elif what == "mask":
        kept = np.random.default_rng(seed).random((160, WIDTH)) < 0.6
        rows = np.where(kept, honest_rows(1, seed + 9), rows)
    queries = queries_of(asked(rows, 0.1), scale(), honest())
    one, two = trail(), trail()
    for q in queries[:cut]:
        list(one.take([q], [False]))
        one.named(LEAST)
    two.restore(one.page())
    for q in queries[cut:]:
        list(one.take([q], [False]))
        list(two.take([q], [False]))
        assert one.named(LEAST) == two.named(LEAST)
    assert _equal(one, two)


def test_a_page_of_another_model_is_refused() -> None:
    one = trail()
    for q in queries_of(asked(honest_rows(20, 1)), scale(), honest()):
        list(one.take([q], [False]))
    page = one.page()
    page["cells"] = page["cells"][:, :3]
    with pytest.raises(StateError):
        trail().restore(page)


def test_a_cluster_seen_from_afar_is_no_line() -> None:
    rng = np.random.default_rng(17)
    cluster = CENTRE + rng.normal(size=(20, WIDTH)) * 0.001
    _, named, _ = follow(asked(np.concatenate([cluster, honest_rows(60, 18)])))
    assert named is None


def _equal(one: Trail, two: Trail) -> bool:
    a, b = one.page(), two.page()
    return a.keys() == b.keys() and all(np.array_equal(a[k], b[k]) for k in a)
