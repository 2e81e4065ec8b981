"""What a cohort's run tells its user."""


class CohortError(ValueError):
    """Something about a cohort that its user must put right: the message says what, and how."""


class CohortWarning(UserWarning):
    """Something about a cohort that its user should know: the run goes on."""


class NoWorkersError(Exception):
    """A cluster has had no worker at work for as long as the run waits."""


def is_reader_death(error: BaseException) -> bool:
    """Whether an error is torch's word that a reading process died, which its signal handler raises anywhere."""
    return isinstance(error, RuntimeError) and "DataLoader worker" in str(error)
