"""Says which parts of a model make its output random, or dependent on the batch, in training mode."""

from collections.abc import Iterable

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd
from torch.nn.modules.instancenorm import _InstanceNorm

from deeplift_fast.errors import TrainingModeWarning, warn


def warn_if_training(models: Iterable[nn.Module]) -> None:
    """Warn with :class:`TrainingModeWarning` of stochastic modules that are in training mode, by name."""
    for model in models:
        named = stochastic_modules(model)
        if named:
            warn(
                f"{type(model).__name__} is in training mode; stochastic modules: {', '.join(named)}. Both streams see "
                "the same random draws and no statistics are updated, but the attributions are those of one draw: call "
                "model.eval() first.",
                TrainingModeWarning,
            )


def warn_if_harmlessly_training(model: nn.Module) -> None:
    """Warn of a model in training mode that :func:`warn_if_training` passes over: nothing in it is known to vary."""
    if model.training and not stochastic_modules(model):
        warn(
            f"{type(model).__name__} is in training mode; none of its modules is known to be stochastic. Call "
            "model.eval() first to be sure.",
            TrainingModeWarning,
        )


def stochastic_modules(model: nn.Module) -> list[str]:
    """The modules in training mode whose output is random or depends on the rest of the batch, as `name (type)`."""
    return [
        f"{name or 'the model'} ({type(module).__name__})"
        for name, module in model.named_modules()
        if module.training and _varies(module)
    ]


def _varies(module: nn.Module) -> bool:
    if isinstance(module, _DropoutNd):
        return module.p > 0
    if isinstance(module, nn.RNNBase):
        return module.dropout > 0 and module.num_layers > 1
    if isinstance(module, nn.MultiheadAttention):
        return module.dropout > 0
    if isinstance(module, _InstanceNorm):
        return module.track_running_stats
    return isinstance(module, nn.RReLU | nn.FractionalMaxPool2d | nn.FractionalMaxPool3d | _BatchNorm)
