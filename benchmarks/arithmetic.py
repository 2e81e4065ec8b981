"""The floating-point operations of the matrix products that attribution of a StageNet batch needs."""

from typing import Any

from torch import Tensor

from deeplift_fast.pyhealth.features import Feature, default_baseline, read_features


def stagenet_flops(model: Any, batch: dict[str, Any], distinct: bool) -> int:
    """Flops of both streams' forward passes and one backward pass, over real steps only.

    The recurrence needs products at each real step, the convolution and the theme only at the last one.

    Args:
        distinct: whether baseline rows with equal inputs, times and code counts up to their step are computed once.
    """
    flops = 0
    for key, feature in read_features(model, batch, use_embeddings=True).items():
        layer = model.stagenet[key]
        hidden = layer.hidden_dim
        gates = 4 * hidden + 2 * layer.levels
        # A linear embedding of continuous values merges with the layer's kernel; the time is one more input.
        inputs = 1 + (layer.input_dim if feature.is_token else feature.value.shape[-1])
        per_step = 2 * gates * (hidden + inputs)
        at_kept = 2 * hidden * hidden * layer.conv_size + 4 * hidden * (hidden // 6)
        steps = _steps(feature)
        rows, kept = sum(steps), len(steps)
        time = feature.parts[model.dataset.input_processors[key].schema().index("time")]
        baseline_rows, baseline_kept = _distinct_rows(feature, time, steps) if distinct else (rows, kept)
        flops += per_step * (2 * rows + baseline_rows) + at_kept * (2 * kept + baseline_kept)
    return flops


def _steps(feature: Feature) -> list[int]:
    """Real steps of each sample, at least 1: StageNet keeps the first step of an empty sample."""
    real = feature.real()
    in_step = real.flatten(2).any(-1) if real.dim() > 2 else real
    return in_step.sum(1).clamp(min=1).tolist()


def _distinct_rows(feature: Feature, time: Tensor | None, steps: list[int]) -> tuple[int, int]:
    """The number of baseline rows with different histories, and the number of these that are a sample's last row."""
    baseline = default_baseline(feature, everywhere=False)
    histories: dict[tuple, int] = {}
    last = set()
    for sample, count in enumerate(steps):
        times = [0.0] * count if time is None else time[sample].flatten().tolist()
        history = 0
        for values, at in zip(baseline[sample, :count].flatten(1).tolist(), times, strict=False):
            # The codes of a visit are summed, so their order does not matter.
            step = (history, at, tuple(sorted(values) if feature.is_token else values))
            history = histories.setdefault(step, len(histories) + 1)
        last.add(history)
    return len(histories), len(last)
