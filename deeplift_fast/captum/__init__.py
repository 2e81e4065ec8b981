"""DeepLift and DeepLiftShap of inputs, layers and neurons, with Captum's signatures; Captum itself is not needed."""

from deeplift_fast.captum.deeplift import DeepLift
from deeplift_fast.captum.layer import LayerDeepLift, LayerDeepLiftShap
from deeplift_fast.captum.neuron import NeuronDeepLift, NeuronDeepLiftShap
from deeplift_fast.captum.shap import DeepLiftShap

__all__ = [
    "DeepLift",
    "DeepLiftShap",
    "LayerDeepLift",
    "LayerDeepLiftShap",
    "NeuronDeepLift",
    "NeuronDeepLiftShap",
]
