"""A cohort's page in words: how many samples, how complete, what was left out, and how far to trust it."""

from deeplift_fast.report.completeness import LARGEST_FACTOR, TOLERANCE, Completeness
from deeplift_fast.report.described import RULES, Run
from deeplift_fast.report.formats import count, cut, share
from deeplift_fast.report.show import difference_of
from deeplift_fast.report.summary import Summary
from deeplift_fast.support.numbers import short

MOST_REASONS = 40
"""Reasons of failures that a page tells, the most frequent first; all others are one."""


def lead_of(summary: Summary, run: Run, fewest: int) -> str:
    """The cohort in a sentence."""
    found = summary.cohort
    patients = f"fewer than {fewest} patients" if found.patients < fewest else count(found.patients, "patient")
    return (
        f"{count(found.samples, 'sample')} of {patients}: what {run.model} predicts for {cut(run.outcome, 60)}, "
        f"compared with {run.reference}."
    )


def failures_of(found: Completeness, fewest: int) -> tuple[tuple[str, ...], tuple[tuple[str, str], ...]]:
    """What was left out, in sentences, and the reasons of failures with their numbers of samples.

    Args:
        found: the totals.
        fewest: smaller numbers of samples are not told.
    """
    failed = sum(found.failures.values())
    told = f"fewer than {fewest} samples" if 0 < failed < fewest else count(failed, "sample")
    sentences = [f"{told} could not be attributed." if failed else "Every sample of the finished parts was attributed."]
    if found.parts_in_all is None:
        sentences.append(f"{count(found.parts, 'part')} are finished; how many there will be is not known.")
    elif found.parts < found.parts_in_all:
        missing = found.parts_in_all - found.parts
        sentences.append(f"{missing:,} of {count(found.parts_in_all, 'part')} are missing: the run is not finished.")
    rare = sum(number < fewest for number in found.failures.values())
    common = [(reason, number) for reason, number in found.failures.items() if number >= fewest]
    reasons = [(cut(reason, 300), f"{number:,}") for reason, number in common[:MOST_REASONS]]
    if further := common[MOST_REASONS:]:
        reasons.append((count(len(further), "further reason"), f"{sum(number for _, number in further):,}"))
    if rare:
        reasons.append((count(rare, "other reason"), f"fewer than {fewest} each"))
    return tuple(sentences), tuple(reasons)


def facts_of(summary: Summary, run: Run) -> tuple[tuple[str, str], ...]:
    """Completeness, model, rule set and baseline, as pairs of a name and a sentence."""
    found = summary.completeness
    facts = [("Complete", _complete(found))]
    if found.samples:
        facts += [
            ("Missed", f"median {short(found.median_delta)}, at most {short(found.max_delta)} logits"),
            ("Cancellation", _cancellation(found)),
        ]
    if found.samples and run.rules in ("rescale", "pyhealth"):
        factor = f"a negative factor, or one above {LARGEST_FACTOR:g}"
        facts.append(("Rescaling", f"{share(found.misscaled)} of samples have {factor}: their contributions mislead."))
    weights = f", weights {run.weights}…" if run.weights else ""
    facts.append(("Model", f"{run.model}{weights}"))
    if difference := difference_of(summary.prediction_difference):
        facts.append(("Explained output", f"The model's own prediction {difference}."))
    facts.append(("Reference", f"{run.reference} (baseline “{cut(run.baseline)}”)"))
    facts.append(("Rule set", RULES.get(run.rules, cut(run.rules))))
    if run.versions:
        facts.append(("Versions", ", ".join(f"{cut(name, 40)} {cut(version, 40)}" for name, version in run.versions)))
    return tuple(facts)


def limits_of() -> tuple[str, ...]:
    """What the page does not say."""
    return (
        "The page says what moved the predictions, not what causes the outcome.",
        "A contribution depends on the reference, on the other entries of the record and on the model.",
        "Means are over the samples that have the code. A rare code with a large mean moves few predictions.",
        "Intervals say how far the mean would move with other patients, not with another model.",
        "Here a sample's attributions to a code are summed. The command summary prints means of single ones.",
    )


def _complete(found: Completeness) -> str:
    if not found.samples:
        return "No sample is attributed yet."
    complete = round(found.complete * found.samples)
    return (
        f"{complete:,} of {count(found.samples, 'sample')} ({share(found.complete)}) are complete: their contributions "
        f"miss at most {TOLERANCE:.0%} of the change in output, before any scaling."
    )


def _cancellation(found: Completeness) -> str:
    return (
        f"The sum of |attributions| is {short(found.median_cancellation)} times the change in output in the median, "
        f"and {short(found.p90_cancellation)} times at the 90th percentile. Far above 1, single ones say little."
    )
