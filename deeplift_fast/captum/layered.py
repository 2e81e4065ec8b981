"""The layer of an explainer, which may be named later or replaced, as Captum's TCAV does."""

from torch import nn

from deeplift_fast.captum.deeplift import DeepLift
from deeplift_fast.core.cut import Place, place_in
from deeplift_fast.core.streams import own_modules
from deeplift_fast.errors import ArgumentTypeError


class Layered(DeepLift):
    """A :class:`DeepLift` at a layer of its model."""

    _call: int | None
    _found: Place | None

    @property
    def layer(self) -> nn.Module | None:
        """The layer; another module of the model, or its name, may replace it, and `None` stands for none yet.

        Raises:
            ValueError, TypeError: for a layer that the model does not have; the message names it.
        """
        return None if self._found is None else self._found.module

    @layer.setter
    def layer(self, layer: nn.Module | str | None) -> None:
        own = own_modules(self.model)
        self._found = None if layer is None else place_in(own, layer, at_input=False, call=self._call)
        self._modules = own or (() if self._found is None else (self._found.module,))

    @property
    def _place(self) -> Place:
        if self._found is None:
            raise ArgumentTypeError(
                "layer is None; accepted: one module of the model, or its name, also set later: explainer.layer = "
                "model.encoder"
            )
        return self._found
