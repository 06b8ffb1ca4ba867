"""The short form: every input of the corpus, and a few thousand made by hypothesis, which shrinks what breaks."""

import random
import tracemalloc

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from scp.admission.structure import walk
from scp.errors import StructureError
from tests.fuzz.data_sets import DEFLATED, EXPLICIT_LITTLE, SYNTAXES, make
from tests.fuzz.seeds import SEEDS
from tests.fuzz.targets import TARGETS, TRIES, WALKER, Target, plain

EACH = settings(
    max_examples=250, derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck)
)
CORPUS = [(name, seed) for name, target in TARGETS.items() for seed in target.corpus]


def test_the_corpus_is_what_its_names_say() -> None:
    """The named seeds are there as they are made; what a run found stands beside them."""
    for target, made in SEEDS.items():
        kept = TARGETS[target].corpus
        assert {name: kept.get(name) for name in made()} == made(), "run python -m tests.fuzz --write-corpus"
        assert sum(map(len, kept.values())) < 64 * 1024


@pytest.mark.parametrize(("name", "seed"), CORPUS)
def test_every_input_of_the_corpus_keeps_every_promise(name: str, seed: str) -> None:
    target = TARGETS[name]
    target.run(target.corpus[seed])
    target.compare(target.corpus[seed])


@pytest.mark.parametrize("name", TARGETS)
@EACH
@given(rng=st.randoms(use_true_random=False))
def test_whatever_arrives_is_accepted_or_refused_by_the_declared_error(name: str, rng: random.Random) -> None:
    target = TARGETS[name]
    data = target.input(rng, list(target.corpus.values()))
    target.run(data)
    target.compare(data)


@pytest.mark.parametrize("name", TARGETS)
def test_mutated_input_is_never_anything_else(name: str) -> None:
    """Many more than hypothesis can make in the time, the same ones each time."""
    target, rng = TARGETS[name], random.Random(20261121)
    corpus = list(target.corpus.values())
    accepted = sum(target.run(target.input(rng, corpus)) for _ in range(target.short))
    assert accepted > 100, "hardly anything is accepted: the mutator damages too much to find anything"


@pytest.mark.parametrize("syntax", SYNTAXES)
@EACH
@given(rng=st.randoms(use_true_random=False))
def test_a_data_set_is_accepted_up_to_an_element_and_at_no_byte_beside_it(syntax: str, rng: random.Random) -> None:
    made = make(rng, syntax)
    whole = plain(made.data, syntax)
    inner = EXPLICIT_LITTLE if syntax == DEFLATED else syntax
    assert [cut for cut in range(len(whole) + 1) if _walks(whole[:cut], inner)] == list(made.ends)
    assert not _walks(whole + b"\0", inner)


def _walks(data: bytes, syntax: str) -> bool:
    try:
        walk(data, syntax)
    except StructureError:
        return False
    return True


@pytest.mark.parametrize("name", TARGETS)
def test_memory_does_not_depend_on_what_lengths_say(name: str) -> None:
    target, rng = TARGETS[name], random.Random(7)
    corpus = list(target.corpus.values())
    inputs = [*corpus, *(target.input(rng, corpus) for _ in range(100))]
    for data in inputs:
        if target is WALKER and data[:1] == bytes([SYNTAXES.index(DEFLATED)]):
            continue
        target.check(data)  # whatever is imported or kept at the first time
        peak = _peak(target, data)
        if peak >= target.memory_max_bytes:  # or another thread of this process took it: not each time
            peak = min(_peak(target, data) for _ in range(TRIES))
        assert peak < target.memory_max_bytes, f"{len(data)} bytes took {peak} bytes of memory"


def _peak(target: Target, data: bytes) -> int:
    """Bytes of Python objects, in all threads."""
    tracemalloc.start()
    try:
        target.check(data)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
