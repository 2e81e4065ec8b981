"""Which codes act together: from a batch and its players to their interactions."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from deeplift_fast.core.options import positive
from deeplift_fast.core.questions import Questions
from deeplift_fast.core.result import Attribution
from deeplift_fast.pyhealth.generic import GenericRoute, Values
from deeplift_fast.pyhealth.given_baselines import Chosen
from deeplift_fast.pyhealth.interactions import Interactions
from deeplift_fast.pyhealth.players import MOST, Owners, named, strongest, vocabularies
from deeplift_fast.pyhealth.request import Batch, Request
from deeplift_fast.pyhealth.variants import Variants
from deeplift_fast.support.integers import as_int


@dataclass(frozen=True)
class Question:
    """The arguments of :meth:`deeplift_fast.DeepLift.interactions` that concern players.

    Attributes:
        top: the number of each patient's strongest codes.
        players: the named players, or `None`.
        exact: whether to give four-way differences.
        rows_at_once: the most rows of a batch of variants, or `None`.

    Raises:
        ValueError: for a number out of range.
        TypeError: for a wrong type.
    """

    top: int
    players: Any
    exact: bool
    rows_at_once: int | None

    def __post_init__(self) -> None:
        top = as_int(self.top)
        if top is None:
            raise TypeError(f"top is {self.top!r}; accepted: an int from 2 to {MOST}")
        if not 2 <= top <= MOST:
            raise ValueError(f"top is {top}; accepted: 2 to {MOST}, because a pair needs two codes")
        object.__setattr__(self, "top", top)
        if not isinstance(self.exact, bool):
            raise TypeError(f"exact is {self.exact!r}; accepted: True or False")
        if self.rows_at_once is not None:
            object.__setattr__(self, "rows_at_once", positive("rows_at_once", self.rows_at_once))


@dataclass(frozen=True)
class Runner:
    """One batch, and the ways to run it and its variants.

    Attributes:
        request: model, target and options.
        batch: the batch; its questions are answered.
        chosen: the baselines.
        generic: the interpreter's generic route.
        attributed: the attribution of a batch to each of some baselines.
        questions: makes questions to a batch.
    """

    request: Request
    batch: Batch
    chosen: Chosen
    generic: GenericRoute
    attributed: Callable[[Request, Batch, Sequence[Values]], list[Attribution]]
    questions: Callable[[], Questions]


@dataclass(frozen=True)
class _Effects:
    """The numbers of one baseline.

    Attributes:
        values: the interactions, `[batch, n, n]`.
        without: the output without each player, `[batch, n]`.
    """

    values: Tensor
    without: Tensor


def found(question: Question, runner: Runner) -> Interactions:
    """The interactions of a batch; see :meth:`deeplift_fast.DeepLift.interactions`."""
    features, named_ones = runner.batch.features, question.players is not None
    texts = vocabularies(runner.request.model, features)
    baselines = runner.chosen.values(features, None)
    players = named(question.players, features, texts) if named_ones else []
    full = [] if question.exact and named_ones else runner.attributed(runner.request, runner.batch, baselines)
    if not named_ones:
        means = {key: torch.stack([each.contributions[key] for each in full]).mean(0) for key in features}
        players = strongest(features, means, texts, question.top)
    owners = Owners.of(players, features)
    variants = Variants(runner.generic, runner.batch, owners, question.rows_at_once)
    logits = runner.generic.logits(runner.batch) if question.exact else None
    target = full[0].target if full else _classes(runner.request.target, logits)
    assert target is not None
    output = full[0].output if logits is None else _at(logits, target)
    if logits is None:
        effects = [_changes(runner, variants, owners, *each) for each in zip(baselines, full, strict=True)]
    else:
        effects = [_differences(runner, variants, (output, target), each, owners.most) for each in baselines]
    missing = torch.arange(owners.most, device="cpu") >= owners.counts[:, None]
    missing = missing.to(output.device)
    alone = torch.eye(owners.most, dtype=torch.bool, device=output.device)
    values = torch.stack([each.values for each in effects]).mean(0)
    nothing = output.new_full((len(output), owners.most), torch.nan)
    sums = [owners.sums(each.contributions) for each in full]
    return Interactions(
        players,
        values.masked_fill(missing[:, None] | missing[:, :, None] | alone, torch.nan),
        torch.stack(sums).mean(0).masked_fill(missing, torch.nan) if full else nothing,
        torch.stack([each.without for each in effects]).mean(0).masked_fill(missing, torch.nan),
        output,
        torch.stack([each.baseline_output for each in full]).mean(0) if full else torch.full_like(output, torch.nan),
        target,
        question.exact,
        runner.chosen.name,
    )


def of_nobody(question: Question, runner: Runner) -> Interactions:
    """The interactions of a batch without samples."""
    nobody = runner.batch.without_samples(runner.request.model, None)
    texts = vocabularies(runner.request.model, runner.batch.features)
    if question.players is not None:
        named(question.players, runner.batch.features, texts)
    assert nobody.target is not None
    numbers = nobody.output
    pairs, players = numbers.new_empty(0, 0, 0), numbers.new_empty(0, 0)
    others = pairs, players, players.clone(), numbers, nobody.baseline_output, nobody.target
    return Interactions([], *others, question.exact, runner.chosen.name)


def refuse_at_baseline(batch: Mapping[str, Any], features: Sequence[str]) -> None:
    """Raise `TypeError` for `at_baseline`, an argument of `explain`, which would count as metadata of the batch."""
    if "at_baseline" in batch and "at_baseline" not in features:
        raise TypeError(
            "at_baseline is given, which only explain takes; interactions puts players at the baseline: name positions "
            "by players=[(feature, code, positions), …]"
        )


def refuse_as_pyhealth(rules: str) -> None:
    """Raise `ValueError` under `"pyhealth"`."""
    if rules == "pyhealth":
        raise ValueError(
            'rules is "pyhealth", whose contributions lie on padding too, so they do not show what codes do together; '
            'accepted for interactions: "rescale", "complete"'
        )


def _changes(runner: Runner, variants: Variants, owners: Owners, baseline: Values, full: Attribution) -> _Effects:
    """By the change of each player's contribution without each other player."""
    own, target = owners.sums(full.contributions), full.target
    assert target is not None
    change = own.new_full((*own.shape, owners.most), torch.nan)
    without = full.output.new_full(own.shape, torch.nan)
    for rows in variants.without_one():
        batch, at = variants.batch(rows, baseline, runner.questions())
        (one,) = runner.attributed(replace(runner.request, target=target[rows.sample]), batch, [at])
        change[rows.sample, rows.first] = own[rows.sample] - owners.sums(one.contributions, rows.sample)
        without[rows.sample, rows.first] = one.output
    return _Effects(change + change.mT, without)


def _differences(
    runner: Runner, variants: Variants, full: tuple[Tensor, Tensor], baseline: Values, most: int
) -> _Effects:
    """By four-way differences; `full` are the output and the explained class of each sample."""
    output, target = full
    without = output.new_full((len(output), most), torch.nan)
    both = output.new_full((len(output), most, most), torch.nan)

    def outputs(rows: Any) -> Tensor:
        batch, _ = variants.batch(rows, baseline, runner.questions())
        return _at(runner.generic.logits(batch), target[rows.sample])

    for rows in variants.without_one():
        without[rows.sample, rows.first] = outputs(rows)
    for rows in variants.without_two():
        both[rows.sample, rows.first, rows.second] = found = outputs(rows)
        both[rows.sample, rows.second, rows.first] = found
    return _Effects(output[:, None, None] - (without[:, :, None] + without[:, None]) + both, without)


def _classes(target: int | Tensor | None, logits: Tensor | None) -> Tensor:
    """The explained class of each sample, int64 `[batch]`."""
    assert logits is not None
    if target is None:
        return logits.argmax(1)
    if isinstance(target, int):
        return torch.full((len(logits),), target, device=logits.device)
    return target


def _at(logits: Tensor, target: Tensor) -> Tensor:
    """The logits at the explained classes, `[batch]`; a single logit stands for every class."""
    if logits.shape[1] == 1:
        return logits[:, 0]
    if len(target) and int(target.max()) >= logits.shape[1]:
        raise ValueError(f"target_class_idx is {int(target.max())}; accepted: 0 to {logits.shape[1] - 1}")
    return logits.gather(1, target[:, None])[:, 0]
