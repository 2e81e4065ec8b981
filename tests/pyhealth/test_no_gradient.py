"""PyHealth models whose outputs no gradient leads back from are refused: their contributions would all be 0."""

import numpy as np
import pytest
import torch
from pyhealth.datasets import create_sample_dataset, get_dataloader
from pyhealth.datasets.utils import collate_fn_dict_with_padding
from pyhealth.models import MLP, BaseModel, CaliForest

from deeplift_fast import DeepLift, InterceptionError

MESSAGE = "the output does not depend on the inputs through PyTorch's operations"


@pytest.fixture(scope="module")
def data():
    rows = [{"patient_id": f"p{i}", "t": [float(i % 3), float(i % 2), 1.0], "label": i % 2} for i in range(12)]
    return create_sample_dataset(rows, {"t": "tensor"}, {"label": "binary"}, in_memory=True)


class Own(BaseModel):
    """A model that computes its logit from the values by a function."""

    def __init__(self, data, function):
        super().__init__(data)
        self.fc, self.function = torch.nn.Linear(3, 1), function

    def forward(self, t, **_):
        return {"logit": self.function(self.fc, t)}


def forest(data):
    model = CaliForest(data, n_estimators=5)
    model.fit(get_dataloader(data, 4))
    return model


def quantized(data):
    mlp = MLP(data, embedding_dim=8, hidden_dim=8).eval()
    return torch.ao.quantization.quantize_dynamic(mlp, {torch.nn.Linear}, dtype=torch.qint8)


def trees(fc, t):
    return torch.tensor(np.where(t.detach().numpy()[:, :1] > 0.5, 2.0, -3.0), dtype=torch.float32)


def frozen(fc, t):
    with torch.no_grad():
        return fc(t)


MODELS = {
    "CaliForest": forest,
    "quantize_dynamic": quantized,
    "trees in NumPy": lambda data: Own(data, trees),
    "under no_grad": lambda data: Own(data, frozen),
    "whole numbers": lambda data: Own(data, lambda fc, t: fc(t.round().long().float())),
}


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("rules", ["rescale", "complete"])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_is_refused(data, kind, rules):
    torch.manual_seed(0)
    model, batch = MODELS[kind](data).eval(), collate_fn_dict_with_padding([data[i] for i in range(6)])
    with torch.no_grad():
        assert len(model(**batch)["logit"].unique()) > 1  # it does depend on the inputs
    with pytest.raises(InterceptionError, match=MESSAGE):
        DeepLift(model, rules=rules).attribute(**batch)


@pytest.mark.parametrize("rules", ["rescale", "complete"])
def test_a_path_along_which_nothing_changes_is_none_of_these(data, rules):
    model = Own(data, lambda fc, t: fc(0 * t)).eval()
    batch = collate_fn_dict_with_padding([data[i] for i in range(6)])
    assert (DeepLift(model, rules=rules).attribute(**batch)["t"] == 0).all()
