"""How fast a client may ask, and what happens to one that asks faster: DoS sensing.

Each client has token buckets for requests, bytes and malformed input. Beyond its burst a client is slowed down: its
answers wait as long as its debt takes to be paid. A client that waits for answers owes one request at most, so nothing
worse ever happens to it, however many jobs it has. A client that asks on regardless, until its debt is more than
``patience`` seconds, is refused and told when to try again. One that goes on and on all the same is abusive.

Invariant: a refused request costs no tokens; memory is bounded, and a client that was idle long enough is forgotten.
"""

from __future__ import annotations

from collections import OrderedDict

from attrs import define, field, frozen

from cloudmytask.model.job import ClientId

ROUNDING = 1e-6
"""Seconds by which sums of many small times may be off."""
CLIENTS_MAX = 10_000
"""Clients that are kept in mind; beyond, those are forgotten that have been quiet for the longest time."""


@frozen(kw_only=True)
class RateLimits:
    """Of one client at one node. Rates are per second."""

    requests: float = 500.0
    requests_burst: float = 1000.0
    bytes: float = 64 * 1024.0**2
    bytes_burst: float = 256 * 1024.0**2
    patience: float = 5.0
    """Seconds that an answer is held back at most; what would have to wait longer is refused."""
    malformed: float = 0.1
    malformed_burst: float = 10.0
    strikes: float = 1 / 30
    strikes_burst: float = 20.0
    """A second with refusals in it is a strike; so are :attr:`strike_refusals` of them. More strikes are abuse."""
    strike_refusals: int = 1000


@frozen
class Verdict:
    """What is to happen to a request."""

    delay: float = 0.0
    """Seconds to hold it back."""
    retry_after: float | None = None
    """Seconds; None unless it is refused."""
    abuse: str = ""
    """Why the client deserves to be banned; empty if it does not. In words that follow its name."""
    refusals: int = 0
    """How many requests of this client were refused since it was last quiet."""


@define
class TokenBucket:
    """``tokens`` as of ``at``; below 0 it is a debt."""

    rate: float
    burst: float
    tokens: float
    at: float

    def refill(self, now: float) -> bool:
        """Bring it up to date; whether it is as good as a new one. A clock that was set back takes nothing away."""
        self.tokens = min(self.burst, self.tokens + max(0.0, now - self.at) * self.rate)
        self.at = now
        return self.tokens >= self.burst

    def debt(self, cost: float) -> float:
        """Seconds until it has paid for ``cost`` more; 0 while it has tokens."""
        return max(0.0, (cost - self.tokens) / self.rate)


@define
class _Account:
    requests: TokenBucket
    bytes: TokenBucket
    malformed: TokenBucket
    strikes: TokenBucket
    refusals: int = 0
    struck_at: float | None = None
    since_strike: int = 0

    def refill(self, now: float) -> bool:
        """Whether nothing of it is worth remembering."""
        full = [bucket.refill(now) for bucket in (self.requests, self.bytes, self.malformed, self.strikes)]
        return all(full)


@define(eq=False)
class Rates:
    """The accounts of all clients at one node. ``now`` is monotonic, in seconds."""

    limits: RateLimits = RateLimits()
    _clients_max: int = CLIENTS_MAX
    _accounts: OrderedDict[ClientId, _Account] = field(init=False, factory=OrderedDict)

    def request(self, client: ClientId, size: int, now: float) -> Verdict:
        """A request of ``size`` bytes came in."""
        account, limits = self._account(client, now), self.limits
        delay = max(account.requests.debt(1), account.bytes.debt(size))
        if delay > limits.patience + ROUNDING:
            return self._refused(account, delay - limits.patience, now)
        account.requests.tokens -= 1
        account.bytes.tokens -= size
        return Verdict(delay)

    def malformed(self, client: ClientId, now: float) -> Verdict:
        """Something came in that no program of ours sends."""
        account, limits = self._account(client, now), self.limits
        account.refusals += 1
        account.malformed.tokens -= 1
        if account.malformed.tokens >= 0:
            return Verdict(refusals=account.refusals)
        abuse = f"sent malformed input more than {limits.malformed_burst:g} times in a short time"
        return Verdict(abuse=abuse, refusals=account.refusals)

    def forgive(self, client: ClientId) -> None:
        """Give this client a full allowance again, as when it has been banned, or its ban has been lifted."""
        self._accounts.pop(client, None)

    def __len__(self) -> int:
        return len(self._accounts)

    def _refused(self, account: _Account, retry_after: float, now: float) -> Verdict:
        account.refusals += 1
        account.since_strike += 1
        again = account.struck_at is None or now - account.struck_at >= 1.0
        if again or account.since_strike >= self.limits.strike_refusals:
            account.struck_at, account.since_strike = now, 0
            account.strikes.tokens -= 1
        abuse = ""
        if account.strikes.tokens < 0:
            abuse = f"went on asking after {account.refusals} refusals"
        return Verdict(retry_after=retry_after, abuse=abuse, refusals=account.refusals)

    def _account(self, client: ClientId, now: float) -> _Account:
        account = self._accounts.get(client)
        if account is not None:
            self._accounts.move_to_end(client)
            if account.refill(now):
                account.refusals = 0
            return account
        self._forget(now)
        limits = self.limits

        def bucket(rate: float, burst: float) -> TokenBucket:
            return TokenBucket(rate, burst, burst, now)

        account = self._accounts[client] = _Account(
            requests=bucket(limits.requests, limits.requests_burst),
            bytes=bucket(limits.bytes, limits.bytes_burst),
            malformed=bucket(limits.malformed, limits.malformed_burst),
            strikes=bucket(limits.strikes, limits.strikes_burst),
        )
        return account

    def _forget(self, now: float) -> None:
        """Make room for a client. Two are looked at for one that comes, so that the idle ones are gone in the end."""
        for _ in range(2):
            if not self._accounts:
                return
            client, account = next(iter(self._accounts.items()))
            if not account.refill(now) and len(self._accounts) < self._clients_max:
                return
            del self._accounts[client]
