"""DeepLift of PyHealth's models has float32's precision on both routes, whatever PyTorch is set to."""

import warnings

import fake_gpu
import pytest
import torch
from fused_cases import MODELS, batch_of, dataset, make
from precision_cases import SETTINGS, all_full, fresh_settings, state
from torch.utils._python_dispatch import TorchDispatchMode

from deeplift_fast import DeepLift

pytestmark = [
    pytest.mark.usefixtures("fresh_settings"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]
__all__ = ["fresh_settings"]


class Products(TorchDispatchMode):
    """Notes for each product, and each op of this package, whether it has full precision."""

    def __init__(self):
        super().__init__()
        self.seen = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        namespace, name = func._schema.name.split("::")
        if namespace == "deeplift_fast" or name in ("mm", "addmm", "bmm", "baddbmm"):
            self.seen[name] = self.seen.get(name, True) and all_full()
        return func(*args, **(kwargs or {}))


def explained(name, setting, fuse=True):
    kind, schema, sizes = MODELS[name]
    data = dataset(schema)
    model, batch = make(kind, data, torch.float32, **sizes), batch_of(data, torch.float32)
    SETTINGS[setting]()
    before = state()
    deeplift = DeepLift(model, rules="complete", fuse=fuse)
    with Products() as products:
        found = deeplift.explain(**batch)
    assert state() == before
    assert found.report.precision == deeplift.report().precision
    return found, products.seen


@pytest.mark.parametrize("fuse", [True, False])
@pytest.mark.parametrize("name", ["StageNet", "Transformer", "RNN, GRU"])
def test_both_routes_run_in_full_precision(name, fuse):
    expected, _ = explained(name, "highest", fuse)
    for setting in ("medium", "all"):
        found, products = explained(name, setting, fuse)
        assert products
        assert all(products.values()), products
        for key, contributions in found.contributions.items():
            assert torch.equal(contributions, expected.contributions[key])
        assert torch.equal(found.output, expected.output)
        assert "although torch.backends sets" in str(found.report)


def test_on_a_gpu_too(monkeypatch):
    fake_gpu.prepare(monkeypatch)
    kind, schema, sizes = MODELS["StageNet"]
    data = dataset(schema)
    SETTINGS["high"]()
    before = state()
    with Products() as products:
        found = fake_gpu.explained(make(kind, data, torch.float32, **sizes), batch_of(data, torch.float32), "complete")
    assert all(products.seen.values())
    assert len(products.seen) > 3
    assert "cudnn.rnn to tf32, cuda.matmul to tf32" in found.report.precision
    assert state() == before


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("graphs", [False, True])
@pytest.mark.parametrize("name", ["StageNet", "Transformer", "RNN, GRU"])
def test_contributions_on_a_gpu_do_not_change_with_the_setting(name, graphs):
    kind, schema, sizes = MODELS[name]
    data = dataset(schema)
    model = make(kind, data, torch.float32, **sizes).cuda()
    found = []
    for setting in ("highest", "high"):
        SETTINGS[setting]()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            deeplift = DeepLift(model, rules="complete", cuda_graphs=graphs)
            found.append(deeplift.attribute(**on_gpu(batch_of(data, torch.float32))))
    for key, contributions in found[1].items():
        limit = 1e-6 * float(found[0][key].abs().max())
        torch.testing.assert_close(contributions, found[0][key], rtol=1e-5, atol=limit)


def on_gpu(value):
    if isinstance(value, dict):
        return {key: on_gpu(each) for key, each in value.items()}
    if isinstance(value, tuple | list):
        return tuple(on_gpu(each) for each in value)
    return value.cuda() if torch.is_tensor(value) else value
