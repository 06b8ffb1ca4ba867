"""The life of a job: one table, and a test that walks the whole matrix."""

from enum import StrEnum


class JobState(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    PARKED = "parked"  # will not run again by itself; a person releases it


UNFINISHED = (JobState.QUEUED, JobState.RUNNING)
IDLE = (JobState.QUEUED, JobState.PARKED)  # to be done, and nobody holds it


class JobEvent(StrEnum):
    CLAIMED = "claimed"
    FINISHED = "finished"
    FAILED_RETRYABLE = "failed_retryable"
    FAILED_PERMANENT = "failed_permanent"
    LEASE_EXPIRED = "lease_expired"
    ATTEMPTS_EXHAUSTED = "attempts_exhausted"
    RELEASED = "released"


TRANSITIONS: dict[tuple[JobState, JobEvent], JobState] = {
    (JobState.QUEUED, JobEvent.CLAIMED): JobState.RUNNING,
    (JobState.RUNNING, JobEvent.FINISHED): JobState.SUCCEEDED,
    (JobState.RUNNING, JobEvent.FAILED_RETRYABLE): JobState.QUEUED,  # with a later due_at
    (JobState.RUNNING, JobEvent.FAILED_PERMANENT): JobState.PARKED,  # a person must look
    (JobState.RUNNING, JobEvent.LEASE_EXPIRED): JobState.QUEUED,  # the worker died; the attempt counts
    (JobState.RUNNING, JobEvent.ATTEMPTS_EXHAUSTED): JobState.PARKED,  # it kills workers: it stops here
    (JobState.PARKED, JobEvent.RELEASED): JobState.QUEUED,
}


class IllegalTransition(ValueError):
    """This event cannot happen to a job in this state."""


def next_state(state: JobState, event: JobEvent) -> JobState:
    try:
        return TRANSITIONS[state, event]
    except KeyError:
        raise IllegalTransition(f"a {state} job cannot be {event}") from None
