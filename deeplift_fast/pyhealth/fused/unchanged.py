"""Notices any change of a model since it was compared with PyHealth's code, faster than another comparison."""

from torch import nn

from deeplift_fast.pyhealth.fused.recognise import difference, has_global_hooks, is_changed

_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


class Unchanged:
    """A model's modules as they were when :func:`deeplift_fast.pyhealth.fused.recognise.obstacle` found nothing.

    The model itself is not held, so that its plan does not keep it alive. The parameters are not compared, because
    their versions tell one from another.

    Args:
        modules: the model and all modules in it, none of them in training mode.

    """

    def __init__(self, modules: list[nn.Module]) -> None:
        inner = [vars(module) for module in modules[1:]]
        self._kinds = {type(module) for module in modules}
        self._attributes = [(attributes, dict(attributes)) for attributes in inner]
        self._hooks = [attributes[name] for attributes in inner for name in _HOOKS]
        self._children = [(module._modules, dict(module._modules)) for module in modules if module._modules]
        self._parameters = [module._parameters for module in modules if module._parameters]

    def parameters(self) -> list[nn.Parameter]:
        """The parameters of all modules, as they are now."""
        return [weight for own in self._parameters for weight in own.values() if weight is not None]

    def holds(self, model: nn.Module) -> bool:
        """Whether the model is still the same: its own attributes are checked, all others compared with copies."""
        if model.training or has_global_hooks() or any(self._hooks) or any(map(is_changed, self._kinds)):
            return False
        if difference(model, self._kinds, set()):
            return False
        try:
            for found, before in (*self._children, *self._attributes):
                if found != before:
                    return False
        except (RuntimeError, ValueError):  # another tensor or array: the comparison has many results
            return False
        return True
