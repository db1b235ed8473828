"""Subscriptions: in order, once for each event, until closed; a failing listener is nobody else's loss."""

from __future__ import annotations

import gc
import weakref

import pytest

from cloudmytask.listeners import Listeners, Registration
from tests.conftest import ExpectFailures


def test_each_is_told_in_the_order_in_which_they_came() -> None:
    told: list[tuple[str, int]] = []
    listeners: Listeners[[int]] = Listeners()
    listeners.add(lambda number: told.append(("first", number)))
    listeners.add(lambda number: told.append(("second", number)))
    listeners.tell(1)
    listeners.tell(2)
    assert told == [("first", 1), ("second", 1), ("first", 2), ("second", 2)]


def test_a_closed_registration_is_told_no_more_and_keeps_nothing_alive() -> None:
    class Subject:
        def heard(self) -> None:
            pytest.fail("it was closed")

    listeners, subject = Listeners[[]](), Subject()
    registration = listeners.add(subject.heard)
    registration.close()
    registration.close()
    listeners.tell()
    alive = weakref.ref(subject)
    del subject
    gc.collect()
    assert alive() is None
    assert len(listeners) == 0


def test_one_that_closes_another_while_an_event_is_told() -> None:
    told: list[str] = []
    listeners: Listeners[[]] = Listeners()
    registrations: list[Registration] = []
    listeners.add(lambda: registrations[0].close())
    registrations.append(listeners.add(lambda: told.append("closed")))
    listeners.add(lambda: told.append("third"))
    listeners.tell()
    assert told == ["third"]


def test_one_that_is_added_while_an_event_is_told_hears_of_the_next() -> None:
    told: list[int] = []
    listeners: Listeners[[int]] = Listeners()
    first = listeners.add(lambda number: listeners.add(told.append) and None)
    listeners.tell(1)
    first.close()
    listeners.tell(2)
    assert told == [2]


def test_a_failing_listener_silences_nobody(expected_failures: ExpectFailures) -> None:
    told: list[int] = []
    listeners: Listeners[[int]] = Listeners()

    def broken(number: int) -> None:
        raise ZeroDivisionError(number)

    listeners.add(broken)
    listeners.add(told.append)
    listeners.tell(1)
    assert told == [1]
    assert len(expected_failures(ZeroDivisionError)) == 1


def test_the_last_event_is_told_to_those_who_come_later_too() -> None:
    told: list[str] = []
    listeners: Listeners[[str]] = Listeners()
    listeners.add(told.append)
    listeners.tell_last("over")
    listeners.tell_last("again")
    listeners.add(lambda why: told.append(f"later: {why}")).close()
    assert told == ["over", "later: over"]
    assert len(listeners) == 0


def test_the_owner_learns_that_nobody_listens_any_more() -> None:
    emptied: list[bool] = []
    listeners: Listeners[[]] = Listeners(emptied=lambda: emptied.append(True))
    first, second = listeners.add(lambda: None), listeners.add(lambda: None)
    first.close()
    assert not emptied
    second.close()
    assert emptied == [True]
