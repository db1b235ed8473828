"""DoS sensing by token buckets: who waits for answers is only slowed down, who does not is refused, and banned in the
end."""

from __future__ import annotations

from heapq import heappop, heappush

from hypothesis import given
from hypothesis import strategies as st

from cloudmytask.core.rates import RateLimits, Rates, Verdict
from cloudmytask.model.job import ClientId

ANN, MALLORY = ClientId("ann"), ClientId("mallory")
LIMITS = RateLimits()


def flood(rates: Rates, count: int, now: float, client: ClientId = MALLORY) -> list[Verdict]:
    """So many requests at one moment."""
    return [rates.request(client, 100, now) for _ in range(count)]


def refused(verdicts: list[Verdict]) -> int:
    return sum(verdict.retry_after is not None for verdict in verdicts)


def test_a_client_within_its_burst_does_not_wait() -> None:
    assert {verdict.delay for verdict in flood(Rates(), int(LIMITS.requests_burst), 0.0)} == {0.0}


def test_ten_thousand_jobs_as_fast_as_the_answers_come_are_only_slowed_down() -> None:
    rates, now = Rates(), 0.0
    for _ in range(10_000):
        verdict = rates.request(ANN, 2_000, now)
        assert (verdict.retry_after, verdict.abuse) == (None, "")
        now += verdict.delay + 0.0005
    assert now >= (10_000 - LIMITS.requests_burst) / LIMITS.requests - 1


@given(st.integers(1, 250), st.floats(0, 0.01))
def test_whoever_keeps_no_more_outstanding_than_the_burst_is_never_refused(window: int, pause: float) -> None:
    """Each of ``window`` workers asks again when it has its answer."""
    rates = Rates(RateLimits(requests=100.0, requests_burst=250.0, patience=2.5))
    due = [0.0] * window
    for _ in range(1500):
        now = heappop(due)
        verdict = rates.request(ANN, 100, now)
        assert verdict.retry_after is None
        heappush(due, now + verdict.delay + pause)


def test_a_flood_is_slowed_down_then_refused_and_told_when_to_come_again() -> None:
    rates = Rates()
    verdicts = flood(rates, 5000, 0.0)
    burst, patient = int(LIMITS.requests_burst), int(LIMITS.requests * LIMITS.patience)
    assert refused(verdicts[: burst + patient]) == 0
    assert verdicts[burst + 10].delay > verdicts[burst].delay > 0
    assert max(verdict.delay for verdict in verdicts) <= LIMITS.patience
    assert refused(verdicts[burst + patient :]) == 5000 - burst - patient
    retry_after = verdicts[-1].retry_after
    assert retry_after is not None
    assert rates.request(MALLORY, 100, retry_after + 0.001).retry_after is None


def test_one_volley_too_many_is_no_abuse() -> None:
    """A program that submits 10,000 jobs at once, and those refused again when it was told to."""
    rates, now, left = Rates(), 0.0, 10_000
    while left:
        verdicts = flood(rates, left, now)
        assert not any(verdict.abuse for verdict in verdicts)
        left = refused(verdicts)
        now += max((verdict.retry_after or 0.0 for verdict in verdicts), default=0.0) + 5.0
    assert now < 60


def test_going_on_after_refusals_is_abuse() -> None:
    rates, now = Rates(), 0.0
    while not any(verdict.abuse for verdict in flood(rates, 1000, now)):
        now += 1.0
        assert now < 60, "it is never banned"
    assert now > 3
    verdict = rates.request(MALLORY, 100, now)
    assert verdict.abuse == f"went on asking after {verdict.refusals} refusals"
    assert rates.request(ANN, 100, now) == Verdict(), "somebody else pays for it"


def test_a_fast_flood_is_abuse_within_a_moment() -> None:
    assert any(verdict.abuse for verdict in flood(Rates(), 30_000, 0.0))


def test_bytes_count_as_requests_do() -> None:
    rates, size = Rates(), int(LIMITS.bytes)
    verdicts = [rates.request(ANN, size, 0.0) for _ in range(12)]
    assert [verdict.delay for verdict in verdicts[:4]] == [0.0] * 4
    assert [verdict.delay for verdict in verdicts[4:9]] == [1.0, 2.0, 3.0, 4.0, 5.0]
    assert refused(verdicts[9:]) == 3


def test_malformed_input_has_a_small_budget_that_comes_back_slowly() -> None:
    rates = Rates()
    assert [bool(rates.malformed(MALLORY, 0.0).abuse) for _ in range(12)] == [False] * 10 + [True] * 2
    occasional = [rates.malformed(ANN, 10.5 * turn).abuse for turn in range(100)]
    assert set(occasional) == {""}


def test_a_client_that_is_forgiven_begins_anew() -> None:
    rates = Rates()
    flood(rates, 30_000, 0.0)
    rates.forgive(MALLORY)
    assert rates.request(MALLORY, 100, 0.0) == Verdict()


def test_idle_clients_are_forgotten() -> None:
    rates = Rates()
    for number in range(3000):
        rates.request(ClientId(f"c{number}"), 100, number / 10)
    assert len(rates) < 20


def test_there_is_a_limit_to_how_many_clients_are_kept_in_mind() -> None:
    rates = Rates(LIMITS, 100)
    for number in range(500):
        rates.request(ClientId(f"c{number}"), 100, 0.0)
    assert len(rates) == 100
    flood(rates, 3000, 0.0, ClientId("c499"))
    assert rates.request(ClientId("c499"), 100, 0.0).delay > 0
