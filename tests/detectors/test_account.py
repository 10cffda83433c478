from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest

from detectors.account import DAY, MAX_INJECTION, RECOVERED, RETURNS, SumAccount
from detectors.base import F64, Bets, Evidence, Page, StateError, Stream, Verdict

PER = 1_000.0


def streams(*fields: str) -> list[Stream]:
    return [Stream(f"{f}:{i}", "feature_drift", "loc", tuple(f.split("*"))) for i, f in enumerate(fields)]


def one_bet_each(n: int, leak: float = 1.0) -> Bets:
    return Bets(np.arange(n), np.full(n, 1 / n), np.full(n, leak))


def evidence(log_e: F64 | Sequence[Sequence[float]], elapsed: float = 1.0, detector: str = "d") -> Evidence:
    table = np.array(log_e, np.float64)
    rows = np.arange(len(table))
    return Evidence(detector, table, np.full(len(table), elapsed), rows, 100 + rows)


def recovery(gains: Sequence[float], leading: int, detector: str = "d") -> Evidence:
    rows = np.arange(len(gains))
    return Evidence(detector, np.array(gains)[:, None], np.zeros(len(gains)), rows, rows, "recovery", (leading,))


def account(*fields: str, outputs: Sequence[str] = (), budget: float = 1.0) -> SumAccount:
    made = SumAccount(budget, PER)
    made.register("d", streams(*fields), one_bet_each(len(fields)), 1.0, outputs)
    return made


def alarmed(made: SumAccount, log_e: Sequence[float]) -> Verdict:
    verdict = made.judge(evidence([log_e]))
    assert verdict.alarm is not None
    return verdict


def test_an_alarm_names_the_strongest_bet_of_its_leading_stream() -> None:
    made = SumAccount(1.0, PER)
    made.register("d", streams("a", "b"), Bets(np.array([0, 0, 1, 1]), np.full(4, 0.25), np.ones(4)), 1.0)
    alarm = alarmed(made, [12.0, 0.0, 11.0, 13.0]).alarm
    assert alarm is not None and (alarm.leading, alarm.leading_bet) == (1, 3)


# --- the promise ----------------------------------------------------------------------------------------------------


def false_alarms(growth: float, runs: int = 30, blocks: int = 1_000) -> tuple[int, float]:
    """Alarms and budget spent on Gaussian e-values, streams correlated; `growth` > 0 breaks E[E | past] <= 1."""
    bets = np.array([0.5, 1.0, 2.0, -1.0])
    alarms, injected = 0, 0.0
    for seed in range(runs):
        rng = np.random.default_rng(seed)
        made = SumAccount(1.0, PER)
        made.register("d", streams(*"abcdef"), Bets(np.repeat(np.arange(6), 4), np.full(24, 1 / 24), np.ones(24)), 1.0)
        shared = rng.standard_normal((blocks, 1))
        z = math.sqrt(0.5) * shared + math.sqrt(0.5) * rng.standard_normal((blocks, 6))
        log_e = (z[:, :, None] * bets - bets**2 / 2 + growth).reshape(blocks, 24)
        at = 0
        while at < blocks:
            verdict = made.judge(evidence(log_e[at:]))
            at += verdict.consumed
            for latch in verdict.latched:
                made.release(latch.key)
        alarms, injected = alarms + made.alarms, injected + made.injected
    return alarms, injected


def test_false_alarms_stay_within_the_budget() -> None:
    alarms, budget = false_alarms(0.0)
    assert budget == pytest.approx(30 * 1.0)
    assert 2 < alarms <= budget + 3 * math.sqrt(budget)


def test_evidence_that_is_no_e_value_breaks_the_budget() -> None:
    alarms, budget = false_alarms(0.1)
    assert alarms > 2 * budget


def test_time_without_evidence_never_alarms() -> None:
    made = account("a", budget=1e9)
    verdict = made.judge(evidence(np.full((200, 1), math.log(0.98)), elapsed=1e12))
    assert verdict.alarm is None and made.capital < 0.5
    assert made.injected == pytest.approx(200 * MAX_INJECTION)


def test_time_that_runs_backwards_injects_nothing() -> None:
    made = account("a")
    made.judge(evidence([[1.0]], elapsed=-5.0))
    assert made.capital == 0.0 and made.injected == 0.0


def test_capital_follows_the_rule() -> None:
    made = SumAccount(1.0, PER)
    made.register("d", streams("a", "b"), Bets(np.array([0, 1]), np.array([0.25, 0.75]), np.array([0.5, 1.0])), 1.0)
    made.judge(evidence([[math.log(2), 0.0], [math.log(3), math.log(4)]]))
    a = (0.25e-3 * 2 * 0.5 + 0.25e-3) * 3 * 0.5
    b = (0.75e-3 + 0.75e-3) * 4
    assert made.capital == pytest.approx(a + b)


def test_shares_are_relative_to_those_of_the_other_detectors() -> None:
    made = account("a")
    made.register("other", streams("b"), one_bet_each(1), 3.0)
    made.judge(evidence([[0.0]]))
    assert made.capital == pytest.approx(0.25e-3)
    made.judge(evidence([[0.0]], detector="other"))
    assert made.capital == pytest.approx(1e-3)


# --- alarms ---------------------------------------------------------------------------------------------------------


def test_an_alarm_names_the_smallest_set_with_nine_tenths() -> None:
    made = account("a", "b", "c", "d")
    alarm = alarmed(made, [math.log(x) for x in (1_000, 3_000, 300, 100)]).alarm
    assert alarm is not None
    assert alarm.streams == (1, 0) and alarm.leading == 1 and (alarm.row, alarm.position) == (0, 100)
    assert alarm.ratio == pytest.approx((1_000 + 3_000 + 300 + 100) / 4)
    assert made.alarms == 1 and made.capital == 0.0


def test_blocks_after_the_alarm_are_void() -> None:
    made = account("a")
    verdict = made.judge(evidence([[0.0], [math.log(2_000)], [9.0]]))
    assert verdict.consumed == 2 and verdict.alarm is not None and verdict.alarm.block == 1
    assert made.injected == pytest.approx(2e-3)


def test_the_alarm_belongs_to_the_detector_of_the_leading_stream() -> None:
    made = account("a", "b")
    made.register("other", streams("b", "c"), one_bet_each(2), 1.0)
    made.judge(evidence([[math.log(3_000), -1.0]]))
    verdict = made.judge(evidence([[math.log(1_500), 0.0]], detector="other"))
    assert verdict.detector == "other" and verdict.alarm is not None
    assert verdict.alarm.detector == "d" and verdict.alarm.streams == (0,) and made.capital == 0.0
    assert {(x.detector, x.streams) for x in verdict.latched} == {("d", (0, 1)), ("other", (0,))}


def test_all_functions_of_a_named_field_are_latched_and_outputs_too() -> None:
    made = account("a", "a*b", "b", "score", "c", outputs=["score"])
    (latch,) = alarmed(made, [math.log(9_000), 0, 0, 0, 0]).latched
    assert latch.streams == (0, 1, 3) and latch.leading == 0


def test_an_alarm_of_an_output_latches_no_input() -> None:
    made = account("a", "score", "class", outputs=["score", "class"])
    (latch,) = alarmed(made, [0, math.log(9_000), 0]).latched
    assert latch.streams == (1,)


def test_a_latched_stream_is_silent_and_the_others_are_not() -> None:
    made = account("a", "b")
    alarmed(made, [math.log(9_000), 0.0])
    assert made.judge(evidence([[30.0, 0.0]] * 20)).alarm is None
    alarm = alarmed(made, [30.0, math.log(9_000)]).alarm
    assert alarm is not None and alarm.streams == (1,)


# --- recoveries -----------------------------------------------------------------------------------------------------


def test_a_latch_opens_at_twenty_to_one_and_two_nats() -> None:
    made = account("a", "b")
    (latch,) = alarmed(made, [9.0, 0.0]).latched
    assert made.judge(recovery([RECOVERED - 0.01], 0)).recovered == ()
    verdict = made.judge(recovery([0.0, 0.02, 5.0], 0))
    assert verdict.recovered == (latch,) and verdict.consumed == 2 and made.latches == ()
    again = alarmed(made, [9.0, 0.0])
    assert again.latched[0].key != latch.key


def test_recovery_starts_anew_after_each_relapse() -> None:
    made = account("a")
    alarmed(made, [9.0])
    assert made.judge(recovery([4.0, -50.0, 4.0], 0)).recovered == ()
    assert made.judge(recovery([1.1], 0)).recovered != ()


def test_latches_of_one_alarm_open_together() -> None:
    made = account("a")
    made.register("other", streams("a"), one_bet_each(1), 1.0)
    verdict = made.judge(evidence([[9.0]]))
    assert made.judge(recovery([99.0], 0, "other")).recovered == ()
    assert made.judge(recovery([99.0], 0)).recovered == verdict.latched


def returning(times: int) -> SumAccount:
    """One stream that has alarmed `times` times, and recovered each time but the last."""
    made = account("a", "b")
    for i in range(times):
        assert alarmed(made, [9.0, 0.0]).alarm is not None
        if i + 1 < times:
            assert made.judge(recovery([99.0], 0)).recovered
    return made


def test_what_comes_and_goes_closes_after_a_whole_day_without_it() -> None:
    made = returning(RETURNS + 1)
    assert made.judge(recovery([99.0], 0)).recovered == ()  # three times it was enough
    made.judge(evidence([[0.0, 0.0]], DAY / 2))
    assert made.judge(recovery([0.0], 0)).recovered == ()
    assert made.judge(recovery([-99.0, 99.0], 0)).recovered == ()  # it was there again: the day begins anew
    made.judge(evidence([[0.0, 0.0]], 0.6 * DAY))
    assert made.judge(recovery([0.0], 0)).recovered == ()
    made.judge(evidence([[0.0, 0.0]], 0.5 * DAY))
    assert made.judge(recovery([0.0], 0)).recovered != ()


def test_other_fields_and_older_weeks_do_not_count() -> None:
    made = returning(RETURNS)
    assert made.judge(recovery([99.0], 0)).recovered
    other = alarmed(made, [0.0, 9.0]).alarm
    assert other is not None and other.times == 1 and made.judge(recovery([99.0], 1)).recovered
    for _ in range(8):
        made.judge(evidence([[-30.0, -30.0]], DAY))
    again = alarmed(made, [9.0, 0.0]).alarm
    assert again is not None and again.times == 1 and made.judge(recovery([99.0], 0)).recovered


def test_a_restart_forgets_neither_returns_nor_the_quiet_so_far() -> None:
    made = returning(RETURNS + 1)
    made.judge(evidence([[0.0, 0.0]], 3_600.0))
    made.judge(recovery([99.0], 0))
    again = account("a", "b")
    again.restore(made.dirty())
    assert again.clock == made.clock >= 3_600
    for one in (made, again):
        one.judge(evidence([[0.0, 0.0]], DAY))
        assert one.judge(recovery([0.0], 0)).recovered
    alarms = [alarmed(one, [9.0, 0.0]).alarm for one in (made, again)]
    assert alarms[0] == alarms[1] and alarms[0] is not None and alarms[0].times == RETURNS + 2


def test_streams_of_others_stay_silent_until_all_have_judged_up_to_the_recovery() -> None:
    """Another detector may have blocks to judge that lie before it."""
    made = account("a")
    made.register("other", streams("a"), one_bet_each(1), 1.0)
    made.judge(evidence([[9.0]]))
    made.judge(recovery([99.0], 0))
    assert made.latches == ()
    assert made.judge(evidence([[30.0]] * 20, detector="other")).alarm is None
    made.open_waiting()
    assert made.judge(evidence([[30.0]] * 20, detector="other")).alarm is not None


def test_a_stream_that_waits_is_latched_by_the_next_alarm() -> None:
    made = account("a")
    made.register("other", streams("a"), one_bet_each(1), 1.0)
    made.judge(evidence([[9.0]]))
    made.judge(recovery([99.0], 0))
    again = made.judge(evidence([[30.0]] * 20))
    assert {latch.detector for latch in again.latched} == {"d", "other"}
    made.open_waiting()
    assert made.judge(evidence([[30.0]] * 20, detector="other")).alarm is None


def test_a_latch_can_be_released_by_hand() -> None:
    made = account("a")
    (latch,) = alarmed(made, [9.0]).latched
    assert made.release(latch.key).recovered == (latch,)
    with pytest.raises(KeyError, match="no latch"):
        made.release(latch.key)
    alarmed(made, [9.0])


# --- state ----------------------------------------------------------------------------------------------------------


def test_a_restored_account_goes_on_as_the_old_one() -> None:
    rng = np.random.default_rng(3)
    log_e = rng.normal(0, 3, (200, 3))
    one = account("a", "b", "score", outputs=["score"])
    stored: dict[str, Page] = {}
    for at in range(0, 200, 10):
        two = account("a", "b", "score", outputs=["score"])
        stored |= one.dirty()
        two.restore(stored)
        piece = log_e[at : at + 10]
        first, second = one.judge(evidence(piece)), two.judge(evidence(piece))
        assert first == second and (one.capital, one.injected, one.alarms) == (two.capital, two.injected, two.alarms)
        assert one.latches == two.latches
        for latch in one.latches:
            assert one.judge(recovery([1.3], latch.leading)) == two.judge(recovery([1.3], latch.leading))
    assert one.alarms > 1 and one.dirty() and not one.dirty()


def test_pages_that_do_not_fit_are_refused_whole() -> None:
    one, two = account("a", "b"), account("a", "b", "c")
    one.judge(evidence([[1.0, 1.0]]))
    with pytest.raises(StateError, match="2 bets, not 3"):
        two.restore(one.dirty())
    assert two.capital == 0.0
    alarmed(two, [9.0, 0.0, 0.0])


def test_pages_handed_out_are_not_touched_again() -> None:
    made = account("a")
    made.judge(evidence([[1.0]]))
    pages = made.dirty()
    before = pages["capital.d"]["capital"].tolist()
    made.judge(evidence([[1.0]]))
    assert pages["capital.d"]["capital"].tolist() == before


def test_evidence_that_cannot_be_judged_is_refused_and_changes_nothing() -> None:
    made = account("a", "b")
    for wrong in ([[0.0]], [[0.0, math.nan]]):
        with pytest.raises(ValueError, match=r"evidence of d .alarm. is not"):
            made.judge(evidence(wrong))
    with pytest.raises(KeyError):
        made.judge(evidence([[0.0, 0.0]], detector="unknown"))
    assert made.capital == 0.0 and made.injected == 0.0


@pytest.mark.parametrize("bets", [
    Bets(np.array([0, 2]), np.array([0.5, 0.5]), np.ones(2)),
    Bets(np.array([0, 1]), np.array([0.5, 0.6]), np.ones(2)),
    Bets(np.array([0, 1]), np.array([0.5, 0.5]), np.array([1.0, 1.1])),
    Bets(np.array([0, 1]), np.array([0.5, 0.5]), np.ones(3)),
])  # fmt: skip
def test_bets_that_break_the_promise_are_refused(bets: Bets) -> None:
    with pytest.raises(ValueError, match="d "):
        SumAccount(1.0, PER).register("d", streams("a", "b"), bets, 1.0)
