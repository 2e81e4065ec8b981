"""A model in training mode: what is warned of, and that both streams see the same draws and leave no statistics."""

import copy
import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from deeplift_fast import TrainingModeWarning, attribute
from deeplift_fast.core import isolation

pytestmark = [
    pytest.mark.filterwarnings("ignore::deeplift_fast.TrainingModeWarning"),
    pytest.mark.filterwarnings("ignore::deeplift_fast.ConvergenceWarning"),
]


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def warned(call):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        call()
    return [w for w in caught if w.category is TrainingModeWarning]


def test_the_warning_names_every_stochastic_module_once_at_the_callers_line():
    model = nn.Sequential(
        nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Sequential(nn.ReLU(), nn.Dropout(0.1)), nn.Linear(4, 2)
    )
    (caught,) = warned(lambda: attribute(model, normal(4, 3), target=0))
    message = str(caught.message)
    assert "Sequential is in training mode; stochastic modules: 1 (BatchNorm1d), 2.1 (Dropout)." in message
    assert "eval()" in message
    assert caught.filename == __file__


def test_a_stochastic_model_is_named_itself():
    (caught,) = warned(lambda: attribute(nn.Dropout(), normal(4, 3), target=0))
    assert "the model (Dropout)" in str(caught.message)


def test_modules_of_a_callable_are_looked_at():
    model = nn.Sequential(nn.Linear(3, 4), nn.Dropout())
    assert warned(lambda: attribute(lambda x: model(x), normal(4, 3), target=0, modules=[model]))
    assert warned(lambda: attribute(model.forward, normal(4, 3), target=0))


STOCHASTIC = [
    nn.Dropout(),
    nn.Dropout2d(),
    nn.AlphaDropout(),
    nn.RReLU(),
    nn.FractionalMaxPool2d(2, output_size=1),
    nn.BatchNorm1d(3),
    nn.BatchNorm3d(3),
    nn.SyncBatchNorm(3),
    nn.InstanceNorm1d(3, track_running_stats=True),
    nn.LSTM(3, 3, num_layers=2, dropout=0.1),
    nn.GRU(3, 3, num_layers=2, dropout=0.1),
    nn.MultiheadAttention(4, 2, dropout=0.1),
    nn.TransformerEncoderLayer(4, 2),
]
STEADY = [
    nn.Dropout(0.0),
    nn.Linear(3, 3),
    nn.ReLU(),
    nn.LayerNorm(3),
    nn.GroupNorm(1, 3),
    nn.InstanceNorm1d(3),
    nn.LSTM(3, 3),
    nn.MultiheadAttention(4, 2),
    nn.TransformerEncoderLayer(4, 2, dropout=0.0),
]


@pytest.mark.parametrize("module", STOCHASTIC, ids=lambda m: type(m).__name__)
def test_stochastic_modules(module):
    module = copy.deepcopy(module)
    assert isolation.stochastic_modules(module.train())
    assert not isolation.stochastic_modules(module.eval())


@pytest.mark.parametrize("module", STEADY, ids=lambda m: type(m).__name__)
def test_modules_that_train_as_they_run(module):
    assert not isolation.stochastic_modules(copy.deepcopy(module).train())


@pytest.mark.filterwarnings("ignore:dropout option adds dropout:UserWarning")
def test_the_dropout_of_a_single_recurrent_layer_is_never_applied():
    assert not isolation.stochastic_modules(nn.GRU(3, 3, num_layers=1, dropout=0.1).train())


def test_only_modules_that_are_training_themselves_count():
    model = nn.Sequential(nn.Dropout(), nn.BatchNorm1d(3)).train()
    model[1].eval()
    assert isolation.stochastic_modules(model) == ["0 (Dropout)"]


def test_a_steady_model_is_warned_of_only_where_asked():
    model = nn.Sequential(nn.Linear(3, 2), nn.ReLU())
    assert not warned(lambda: attribute(model, normal(4, 3), target=0))
    assert len(warned(lambda: isolation.warn_if_harmlessly_training(model))) == 1
    assert not warned(lambda: isolation.warn_if_harmlessly_training(model.eval()))
    assert not warned(lambda: isolation.warn_if_harmlessly_training(nn.Dropout()))


def test_dropout_is_one_fixed_mask():
    x, x0 = normal(4, 6), normal(4, 6, seed=1)
    model = nn.Sequential(nn.Dropout(0.5), nn.Linear(6, 1))
    torch.manual_seed(3)
    mask = F.dropout(torch.ones(4, 6), 0.5)
    torch.manual_seed(3)
    found = attribute(model, x, x0, target=0)
    torch.testing.assert_close(found.contributions, mask * model[1].weight.detach() * (x - x0))


def test_dropout_between_activations_is_complete():
    model = nn.Sequential(nn.Linear(6, 9), nn.ReLU(), nn.Dropout(0.5), nn.Linear(9, 5), nn.Tanh(), nn.Linear(5, 2))
    model.double()
    found = attribute(model, normal(50, 6).double(), normal(6, seed=1).double(), target=1)
    assert found.convergence_delta.abs().max() < 1e-12
    assert (found.output - found.baseline_output).abs().mean() > 0.01


def test_the_output_is_what_the_model_gives_with_the_same_seed():
    model = nn.Sequential(nn.Linear(6, 9), nn.BatchNorm1d(9), nn.ReLU(), nn.Dropout(0.5), nn.Linear(9, 2))
    x, x0 = normal(4, 6), normal(4, 6, seed=1)
    torch.manual_seed(5)
    found = attribute(model, x, x0, target=0)
    for values, output in ((x, found.output), (x0, found.baseline_output)):
        torch.manual_seed(5)
        torch.testing.assert_close(output, copy.deepcopy(model)(values)[:, 0].detach())


def test_each_call_draws_what_the_process_would_draw_next():
    model = nn.Sequential(nn.Dropout(0.5), nn.Linear(6, 1))
    first, second = (attribute(model, normal(4, 6), target=0).contributions for _ in range(2))
    assert torch.equal(first, second)
    torch.rand(1)
    assert not torch.equal(first, attribute(model, normal(4, 6), target=0).contributions)


@pytest.mark.parametrize("momentum", [0.1, None])
def test_batch_norm_statistics_are_as_before(momentum, untouched):
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3),
        nn.BatchNorm2d(4, momentum=momentum),
        nn.ReLU(inplace=True),
        nn.InstanceNorm2d(4, track_running_stats=True),
        nn.Flatten(),
        nn.BatchNorm1d(64, affine=False),
        nn.Linear(64, 2),
    )
    with untouched(model):
        found = attribute(model, normal(5, 3, 6, 6), target=0)
    assert model[1].num_batches_tracked == 0
    torch.testing.assert_close(found.output, copy.deepcopy(model)(normal(5, 3, 6, 6))[:, 0].detach())


def test_statistics_written_by_scripted_code_are_put_back():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scripted = torch.jit.script(nn.Sequential(nn.BatchNorm1d(3), nn.ReLU()))
        attribute(nn.Sequential(nn.Linear(3, 3), scripted), normal(4, 3), target=0)
    assert scripted[0].running_mean.tolist() == [0, 0, 0]
    assert scripted[0].num_batches_tracked == 0


def test_renormalised_embeddings_are_as_before(untouched):
    class Tokens(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding = nn.Embedding(5, 3, max_norm=0.1)
            self.bag = nn.EmbeddingBag(5, 3, max_norm=0.1)

        def forward(self, x, tokens):
            return torch.relu(x + self.embedding(tokens) + self.bag(tokens.reshape(-1, 1)))

    model = Tokens()
    with untouched(model):
        found = attribute(model, normal(4, 3), target=0, forward_args=(torch.tensor([0, 1, 2, 0]),))
    torch.testing.assert_close(found.output, copy.deepcopy(model)(normal(4, 3), torch.tensor([0, 1, 2, 0]))[:, 0])


def test_a_pass_that_is_run_anew_draws_the_same_numbers():
    """A model that overwrites a pre-activation is run at the baseline once more."""

    def model(x):
        hidden = F.dropout(x, 0.5)
        result = torch.tanh(hidden)
        hidden += 1
        return result

    x, x0 = normal(4, 6), normal(4, 6, seed=1)
    torch.manual_seed(3)
    mask = F.dropout(torch.ones(4, 6), 0.5)
    torch.manual_seed(3)
    found = attribute(model, x, x0, target=2)
    torch.testing.assert_close(found.output, torch.tanh(mask * x)[:, 2])
    torch.testing.assert_close(found.baseline_output, torch.tanh(mask * x0)[:, 2])
