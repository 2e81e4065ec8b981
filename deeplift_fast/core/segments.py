"""Several segments of the path from baseline to input as rows of one batch."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from deeplift_fast.core.result import Attribution
from deeplift_fast.core.streams import Streams, Values, found_at, point_at


def run_in_batches(streams: Streams, xs: Values, x0s: Values, at_once: int) -> Attribution:
    """Run as :meth:`Streams.run`, with up to `at_once` segments in each pass of the model.

    Each batch of segments costs two forward passes. The model must not mix the rows of a batch.

    Args:
        streams: the model and the number of steps.
        xs: the inputs.
        x0s: the baselines.
        at_once: most segments in one batch.

    Returns:
        The attribution, by name or position.
    """
    steps, batch = streams.steps, streams.batch
    target = streams.settled_target(xs)
    totals: dict[Hashable, Tensor] = {}
    parts: list[Attribution] = []
    for start in range(0, steps, at_once):
        count = min(at_once, steps - start)
        ends = [_points(xs, x0s, [k / steps for k in range(start + i, start + i + count)]) for i in (0, 1)]
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


def _points(xs: Values, x0s: Values, positions: list[float]) -> Values:
    with torch.no_grad():
        points = [point_at(xs, x0s, position) for position in positions]
        return {name: torch.cat([point[name] for point in points]) for name in xs}


def repeated(values: Any, batch: int, count: int) -> Any:
    """The same structure; tensors and lists with one row per sample are repeated `count` times."""
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
