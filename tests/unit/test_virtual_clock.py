"""The clock of the simulation: calls come when they are due, and time stands where it was told to stand."""

from __future__ import annotations

from weakref import ref

from cloudmytask.simulation.clock import VirtualClock


def test_time_does_not_run_ahead_because_of_a_call_that_was_cancelled() -> None:
    clock, called = VirtualClock(), list[float]()
    clock.callLater(1.0, called.append, 1.0).cancel()
    clock.callLater(60.0, lambda: called.append(clock.seconds()))
    clock.advance(2.0)
    assert (clock.seconds(), called) == (2.0, [])
    clock.advance(58.0)
    assert (clock.seconds(), called) == (60.0, [60.0])


def test_a_call_that_was_cancelled_keeps_nothing_alive() -> None:
    class Subject:
        def call(self) -> None: ...

    clock, subject = VirtualClock(), Subject()
    gone = ref(subject)
    clock.callLater(600.0, subject.call).cancel()
    del subject
    assert gone() is None


def test_a_step_passes_over_what_was_cancelled() -> None:
    clock, called = VirtualClock(), list[str]()
    clock.callLater(1.0, called.append, "a").cancel()
    clock.callLater(3.0, called.append, "b")
    assert clock.step() and (clock.seconds(), called) == (3.0, ["b"])
    assert not clock.step()
