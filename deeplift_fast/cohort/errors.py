"""What a cohort's run tells its user."""


class CohortError(ValueError):
    """Something about a cohort that its user must put right: the message says what, and how."""


class SlowReadingWarning(UserWarning):
    """Samples are read in a way that attribution may have to wait for."""
