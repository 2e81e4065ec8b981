"""Several segments of the path from baseline to input as rows of one batch."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from deeplift_fast.core.result import Attribution
from deeplift_fast.core.streams import Streams, Values, found_at


def run_in_batches(streams: Streams, xs: Values, x0s: Values, at_once: int) -> Attribution:
    """What :meth:`Streams.run` finds, with up to `at_once` segments in each pass of the model.

    Two forward passes for each batch of segments: more arithmetic than segment after segment, in fewer calls.

    Args:
        streams: the model and the number of steps; it must not mix the rows of a batch.
        xs: the inputs.
        x0s: the baselines.
        at_once: most segments in one batch.
    """
    steps, batch = streams.steps, streams.batch
    target = streams.settled_target(xs)
    totals: dict[Hashable, Tensor] = {}
    parts: list[Attribution] = []
    for start in range(0, steps, at_once):
        count = min(at_once, steps - start)
        ends = [{name: _points(xs[name], x0s[name], start + i, count, steps) for name in xs} for i in (0, 1)]
        part = replace(
            streams,
            forward_args=repeated(streams.forward_args, batch, count),
            target=target.repeat(count, *[1] * (target.dim() - 1)) if isinstance(target, Tensor) else target,
            batch=batch * count,
            steps=1,
        ).run(ends[1], ends[0])
        for name, multiplier in part.multipliers.items():
            total = multiplier.unflatten(0, (count, batch)).sum(0)
            totals[name] = totals[name] + total if name in totals else total
        parts.append(part)
    means = {name: total / steps for name, total in totals.items()}
    with torch.no_grad():
        contributions = {name: (x.detach() - x0s[name].detach()).mul_(means[name]) for name, x in xs.items()}
    outputs = parts[-1].output[-batch:], parts[0].baseline_output[:batch]
    found = parts[-1].target
    shown = None if found is None else found[-batch:]
    return found_at(means, contributions, outputs, shown)


def _points(x: Tensor, x0: Tensor, first: int, count: int, steps: int) -> Tensor:
    with torch.no_grad():
        return torch.cat([_on_line(x, x0, k, steps) for k in range(first, first + count)])


def _on_line(x: Tensor, x0: Tensor, k: int, steps: int) -> Tensor:
    return x if k == steps else x0 if k == 0 else torch.lerp(x0, x, k / steps)


def repeated(values: Any, batch: int, count: int) -> Any:
    """The same structure with everything that has a row per sample repeated `count` times."""
    if count == 1:
        return values
    if isinstance(values, Tensor):
        return values.repeat(count, *[1] * (values.dim() - 1)) if values.dim() and len(values) == batch else values
    if isinstance(values, Mapping):
        return {key: repeated(value, batch, count) for key, value in values.items()}
    if isinstance(values, tuple):
        return tuple(repeated(value, batch, count) for value in values)
    if isinstance(values, Sequence) and not isinstance(values, str):
        plain = not any(isinstance(value, Tensor | tuple | list) for value in values)
        return list(values) * count if plain and len(values) == batch else [repeated(v, batch, count) for v in values]
    return values
