"""What a run of a cohort gives back."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Cohort:
    """A cohort that was attributed to its end.

    Attributes:
        out: the output folder or URL.
        samples: number of samples attributed, in this run and those that it went on from.
        failures: number of samples that could not be; `failures.parquet` says why.
        parts: number of parts.
        seconds: time that this run took.
        reading: seconds of it that attribution waited for samples. On a cluster this and the next two are sums over
            the workers.
        attribution: seconds of it in the interpreter; of parts that are attributed side by side their mean.
        writing: seconds of it that attribution waited for tables to be written.
        budget: padded steps per batch; 0 where no part was needed.
    """

    out: str
    samples: int
    failures: int
    parts: int
    seconds: float
    reading: float
    attribution: float
    writing: float
    budget: int
