"""Job ids: collide never, forgive what people mistype, and notice what they mistype badly."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloudmytask.core.job_id import ALPHABET, KEY_MAX, LENGTH, SYMBOLS, job_id, normalize
from cloudmytask.model.errors import InvalidArgument
from cloudmytask.model.job import ClientId

ANN, BEN = ClientId("ann"), ClientId("ben")

keys = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=KEY_MAX)
ids = st.builds(job_id, st.sampled_from([ANN, BEN]), keys)


def test_the_same_inputs_give_the_same_id() -> None:
    assert job_id(ANN, "key") == job_id(ANN, "key") == "4t7hjp39q26fmmhhb"


def test_an_id_has_the_promised_form() -> None:
    for number in range(200):
        found = job_id(ANN, str(number))
        assert len(found) == LENGTH == SYMBOLS + 1 and set(found) <= set(ALPHABET)
    assert len(ALPHABET) == len(set(ALPHABET)) == 32 and not set("ilou") & set(ALPHABET)


def test_nothing_collides() -> None:
    clients = (ANN, BEN, ClientId("an"), ClientId("nann"))
    found = {job_id(client, f"{number:x}") for client in clients for number in range(25_000)}
    assert len(found) == 100_000


def test_client_and_key_do_not_run_together() -> None:
    assert job_id(ClientId("ab"), "c") != job_id(ClientId("a"), "bc")


def test_no_symbol_is_rarer_than_others() -> None:
    bodies = "".join(job_id(ANN, str(number))[:SYMBOLS] for number in range(4000))
    counts = [bodies.count(symbol) for symbol in ALPHABET]
    assert 0.85 < min(counts) / (len(bodies) / 32) <= max(counts) / (len(bodies) / 32) < 1.15


@given(ids)
def test_an_id_is_its_own_canonical_form(found: str) -> None:
    assert normalize(found) == found
    assert normalize(found.upper()) == found
    assert normalize(f"  {found[:4]}-{found[4:9]}-{found[9:]}\n") == found
    assert normalize(found.replace("0", "O").replace("1", "I")) == found
    assert normalize(found.replace("0", "o").replace("1", "l")) == found


@given(ids, st.integers(0, LENGTH - 1))
def test_every_mistyped_symbol_is_noticed(found: str, place: int) -> None:
    for symbol in ALPHABET:
        if symbol != found[place]:
            with pytest.raises(InvalidArgument, match="mistyped"):
                normalize(found[:place] + symbol + found[place + 1 :])


@given(ids)
def test_every_exchange_of_two_symbols_is_noticed(found: str) -> None:
    for first, second in itertools.combinations(range(LENGTH), 2):
        if found[first] != found[second]:
            swapped = list(found)
            swapped[first], swapped[second] = swapped[second], swapped[first]
            with pytest.raises(InvalidArgument, match="mistyped"):
                normalize("".join(swapped))


@given(ids, st.integers(1, LENGTH - 1))
def test_a_prefix_is_taken_as_it_is(found: str, length: int) -> None:
    assert normalize(found[:length].upper()) == found[:length]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "empty"),
        ("  ", "empty"),
        ("---", "empty"),
        ("abcu", "'abcu' has 'u'"),
        ("ab cd", "'ab cd' has ' '"),
        ("ab/../cd", "has '/'"),
        ("äb", "has 'ä'"),
        ("٣4", "has '٣'"),
        ("0" * 18, "'000000000000000000' has 18 symbols, but ids have 17"),
        ("x" * 10_000, "has 10000 symbols"),
        ("0" * 16 + "1", "mistyped"),
    ],
)
def test_what_is_no_id_is_refused_by_name(text: str, says: str) -> None:
    with pytest.raises(InvalidArgument) as raised:
        normalize(text)
    assert str(raised.value).startswith("job id: ") and says in str(raised.value)
    assert len(str(raised.value)) < 120
