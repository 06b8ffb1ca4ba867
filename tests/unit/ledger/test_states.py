from itertools import product

import pytest

from ledger.states import TRANSITIONS, IllegalTransition, JobEvent, JobState, next_state

PAIRS = list(product(JobState, JobEvent))


@pytest.mark.parametrize(("state", "event"), [pair for pair in PAIRS if pair not in TRANSITIONS])
def test_a_pair_outside_the_table_is_refused(state: JobState, event: JobEvent) -> None:
    with pytest.raises(IllegalTransition):
        next_state(state, event)


def test_every_state_can_be_reached_and_only_success_is_final() -> None:
    assert set(TRANSITIONS.values()) | {JobState.QUEUED} == set(JobState)
    assert set(JobState) - {state for state, _ in TRANSITIONS} == {JobState.SUCCEEDED}
