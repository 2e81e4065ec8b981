"""The page in words: the prediction, what moved it most, how complete that is, and its limits."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from deeplift_fast.report.colour_classes import sign
from deeplift_fast.report.described import RULES, Run
from deeplift_fast.report.formats import count, cut, day, share
from deeplift_fast.report.patient.columns import Columns, moment_of
from deeplift_fast.report.patient.items import Item
from deeplift_fast.report.patient.rows import Pair, Row, Sample, likelihood
from deeplift_fast.report.patient.together import Together, together_of
from deeplift_fast.support.numbers import Numbers, short

REASONS = 3
"""The strongest reasons."""

CANCELLING = 10.0
"""Σ|contribution| / |change| from which on a page warns of cancellation."""

TOLERANCE = 0.01
"""The part of the change that a complete sample's contributions miss at most."""


@dataclass(frozen=True)
class Reason:
    """A reason in words: "title, value when, did something", and the codes that it acts together with."""

    title: str
    detail: str
    did: str
    style: str
    mark: str
    together: tuple[Together, ...] = ()


@dataclass(frozen=True)
class Lead:
    """The first sentences.

    Attributes:
        risk: the prediction: "34 %", or an output.
        sentence: what it is, and of which model.
        compared: the prediction for the reference.
    """

    risk: str
    sentence: str
    compared: str


def lead_of(sample: Sample, run: Run) -> Lead:
    """The prediction in words."""
    outcome = cut(run.outcome, 60)
    what = f"{outcome} = {sample.target}" if run.mode == "multiclass" else outcome
    if run.mode == "multilabel":
        what = f"label {sample.target} of {outcome}"
    if sample.probability is None:
        risk, sentence = short(sample.output), f"is what {run.model} predicts for {what}."
    else:
        risk, sentence = share(sample.probability), f"is the probability of {what} that {run.model} predicts."
    base = f"{short(sample.baseline_output)}{'' if sample.probability is None else ' as its logit'}"
    if sample.is_likely:
        base = share(likelihood(sample.baseline_output))
    return Lead(risk, sentence, f"The reference is {run.reference}: for it the model predicts {base}.")


def reasons_of(
    items: Sequence[Item], columns: Columns, unit: str, pairs: Sequence[Pair] | None = None
) -> tuple[Reason, ...]:
    """The strongest items in words.

    Args:
        items: the sample's items, the strongest first.
        columns: the columns of its timeline.
        unit: what contributions are in: "logit" or "output".
        pairs: the sample's pairs; `None` where they are not known.
    """
    strongest = [item for item in items if item.attribution][:REASONS]
    numbers = Numbers(max((abs(item.attribution) for item in strongest), default=1.0), 2)
    reasons = (_reason(item, columns, numbers, unit) for item in strongest)
    together = (together_of(item, items, pairs or ()) for item in strongest)
    return tuple(replace(reason, together=each) for reason, each in zip(reasons, together, strict=True))


def _reason(item: Item, columns: Columns, numbers: Numbers, unit: str) -> Reason:
    did = "raised" if item.attribution > 0 else "lowered"
    return Reason(
        item.title,
        _detail(item, columns),
        f"{did} the {unit} by {numbers.level(abs(item.attribution))}",
        f"t{sign(item.attribution)}",
        "▲" if item.attribution > 0 else "▼",
    )


def _detail(item: Item, columns: Columns) -> str:
    """When it was, with value and unit: of the row that did most of it."""
    strongest = max(item.rows, key=lambda row: math.copysign(1, item.attribution) * row.attribution)
    when = when_of(strongest, columns)
    if item.count > 1:
        return ""
    if not item.is_value:
        often = f", one of {len(item.rows)} times" if len(item.rows) > 1 else ""
        return f"recorded {when}{often}"
    measured = [row for row in item.rows if row.value is not None and row.measured is not False]
    if strongest in measured:
        assert strongest.value is not None
        words = {"H": ", high", "L": ", low", "": ""}[item.flag(strongest.value)]
        often = f", the strongest of {len(measured)} values" if len(measured) > 1 else ""
        return f"{item.shown(strongest.value)}{words}, {when}{often}"
    before = item.before([strongest])
    if before is not None and before.value is not None:
        return f"not measured {when}: last {item.shown(before.value)} {when_of(before, columns)}"
    return f"not measured {when}"


def when_of(row: Row, columns: Columns) -> str:
    """When a row was: "on day 12", "at time 3.5", "at step 4"."""
    when = moment_of(row, columns)
    if not when:
        return "at an unknown time" if columns.kind == "stay" else "without a date"
    return f"{'on' if row.day is not None else 'in' if columns.kind == 'stay' else 'at'} {when}"


def facts_of(
    sample: Sample, run: Run, items: Sequence[Item], difference: str, pseudonymous: bool
) -> tuple[tuple[str, str], ...]:
    """Completeness, model, rule set and baseline, as pairs of a name and a sentence.

    Args:
        sample: the sample.
        run: its run.
        items: its items.
        difference: how the model's own prediction differs from the explained one; empty where it does not.
        pseudonymous: whether the sample's number and visit are left out.
    """
    facts = [("Completeness", _completeness(sample, items))]
    if warning := _cancellation(sample):
        facts.append(("Cancellation", warning))
    weights = f", weights {run.weights}…" if run.weights else ""
    facts.append(("Model", f"{run.model}{weights}; explained: {sample.unit} {sample.target} of {cut(run.outcome, 60)}"))
    if difference:
        facts.append(("Explained output", f"The model's own prediction {difference}."))
    facts.append(("Reference", f"{run.reference} (baseline “{cut(run.baseline)}”)"))
    facts.append(("Rule set", RULES.get(run.rules, cut(run.rules))))
    if sample.label is not None:
        facts.append(("In the data", f"{cut(run.outcome, 60)}: {short(sample.label)}"))
    if sample.split is not None:
        own = (
            ": the model was trained on this sample, and fits it better than new ones"
            if sample.split == "train"
            else ""
        )
        facts.append(("Split", cut(sample.split, 40) + own))
    if not pseudonymous:
        visit = "" if sample.visit is None else f", visit {cut(sample.visit, 60)}"
        facts.append(("Record", f"sample {sample.number:,} of the cohort{visit}"))
    made = [f"{cut(name, 40)} {cut(version, 40)}" for name, version in run.versions]
    made += [f"attributed from {cut(run.created, 20)} on"] if run.created else []
    if made:
        facts.append(("Made by", ", ".join(made)))
    return tuple(facts)


def _completeness(sample: Sample, items: Sequence[Item]) -> str:
    total = math.fsum(item.attribution for item in items)
    largest = max(abs(total), abs(sample.change), 1e-30)
    numbers = Numbers(largest)
    missed = abs(sample.convergence_delta) / max(abs(sample.change), 1e-30)
    text = (
        f"The contributions sum to {numbers.plain(total)}, and the {sample.unit} changed by "
        f"{numbers.plain(sample.change)}. "
        f"Before any scaling they missed {f'{missed:.2%}' if missed < 10 else f'{missed:.0f} times'} of the change"
    )
    return text + (": complete." if missed <= TOLERANCE else ": not complete, so read single bars with care.")


def _cancellation(sample: Sample) -> str:
    size = math.fsum(abs(row.attribution) for row in sample.rows)
    ratio = size / abs(sample.change) if sample.change else math.inf
    if ratio < CANCELLING:
        return ""
    often = f"{ratio:,.0f} times" if math.isfinite(ratio) else "far more than"
    return f"Contributions of both signs are {often} the change in all, and largely cancel: a single one says little."


def limits_of(is_hollow: bool) -> tuple[str, ...]:
    """What the page does not say."""
    hollow = ("A hollow cell was not measured then, yet the model was given a value, and it moved the prediction.",)
    return (
        "The page says what moved the prediction, not what causes the outcome. Treating a reason need not change it.",
        "A contribution depends on the reference, on the other entries of the record and on the model.",
        "The model may be wrong for this patient. The page does not say how sure it is.",
        *(hollow if is_hollow else ()),
    )


def about_of(columns: Columns, sample: Sample) -> str:
    """The record in one line: "5 stays, 312 entries, day 0 to day 812"."""
    number = sum(column.older or 1 for column in columns.each if column.rows)
    days = [row.day for row in sample.rows if row.day is not None]
    span = f", {day(min(days))} to {day(max(days))}" if days else ""
    return f"{count(number, columns.kind)}, {count(len(sample.rows), 'entry', 'entries')}{span}"
