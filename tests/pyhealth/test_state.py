"""A call leaves the model and the process as they were, also in training mode, after an error, and in threads."""

import copy
import random
import threading
import warnings

import numpy as np
import pytest
import torch
from pyhealth.interpret.api import Interpretable
from pyhealth.models import BaseModel
from pyhealth.models.embedding import EmbeddingModel
from torch import nn

from deeplift_fast import DeepLift, TrainingModeWarning

MODELS = ["StageNet", "StageAttentionNet", "Transformer", "Transformer, 2 layers", "MLP"]
pytestmark = pytest.mark.filterwarnings(
    "ignore:Feature .* does not have time intervals", "ignore:.*before rescaling", "ignore:.*is in training mode"
)


@pytest.mark.parametrize("rules", ["rescale", "pyhealth"])
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("name", MODELS)
def test_nothing_changes(cases, untouched, name, training, rules):
    data = cases.dataset(*cases.MIXED[name])
    made, given = cases.model(name, data), cases.batch(data)
    first, second, *_ = made.parameters()
    second.requires_grad_(False)
    made.fc.weight.grad = torch.ones_like(made.fc.weight)
    made.fc.register_forward_hook(lambda *_: None)
    interpreter = DeepLift(made, rules=rules)
    made.train(training)
    kept = {key: copy.deepcopy(part) for key, part in given.items()}
    with untouched(made):
        interpreter.attribute(**given)
    assert (made.fc.weight.grad == 1).all()
    assert first.grad is None
    for key, value in cases.values(made, given).items():
        assert torch.equal(value, cases.value_of(kept[key]))


@pytest.mark.parametrize("rules", ["rescale", "pyhealth"])
@pytest.mark.parametrize("fails_on_call", [1, 2])
@pytest.mark.parametrize("name", MODELS)
def test_nothing_changes_when_the_model_fails(cases, untouched, name, fails_on_call, rules):
    data = cases.dataset(*cases.MIXED[name])
    made, given = cases.model(name, data), cases.batch(data)
    interpreter = DeepLift(made, rules=rules)
    calls = []

    def fail(*_):
        calls.append(torch.rand(1))
        if len(calls) == fails_on_call:
            raise ZeroDivisionError

    handle = made.fc.register_forward_hook(fail)
    with untouched(made), pytest.raises(ZeroDivisionError):
        interpreter.attribute(**given)
    handle.remove()
    expected = DeepLift(cases.model(name, data), rules=rules).attribute(**given)
    assert torch.equal(cases.flat(interpreter.attribute(**given)), cases.flat(expected))


class Layered(BaseModel, Interpretable):
    """Embedding, a layer of the test's choice, ReLU and a linear layer: complete under the Rescale rule."""

    def __init__(self, data, layer=None, embedding=None):
        super().__init__(data)
        self.embedding_model = EmbeddingModel(data, 8) if embedding is None else embedding
        self.layer = nn.Identity() if layer is None else layer
        self.head = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Dropout(0.5), nn.Linear(16, 1))
        self.seen = None

    def forward(self, **parts):
        raise AssertionError("not needed with embeddings")

    def forward_from_embedding(self, **parts):
        self.seen = list(self.feature_keys)
        pooled = sum(parts[key][0].flatten(1, -2).sum(1) for key in self.feature_keys)
        return {"logit": self.head(self.layer(pooled))}

    def get_embedding_model(self):
        return self.embedding_model


class Jittery(EmbeddingModel):
    """Draws, and leaves a note on itself."""

    def forward(self, inputs):
        self.note = list(inputs)
        noise = torch.rand(1) + random.random() + np.random.rand()  # noqa: NPY002
        return {key: value * noise for key, value in super().forward(inputs).items()}


@pytest.fixture
def sequences(cases):
    data = cases.dataset("sequence", "timeseries")
    return data, cases.batch(data)


class TestTrainingMode:
    @pytest.mark.parametrize("name", MODELS[:-1])
    def test_is_warned_of_by_naming_the_stochastic_modules(self, cases, name):
        data = cases.dataset(*cases.MIXED[name])
        made, given = cases.model(name, data), cases.batch(data)
        interpreter = DeepLift(made)
        made.train()
        stochastic = [n for n, module in made.named_modules() if isinstance(module, nn.Dropout)]
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            interpreter.attribute(**given)
        (message,) = [str(w.message) for w in caught if w.category is TrainingModeWarning]
        assert all(f"{n} (Dropout)" in message for n in stochastic)

    def test_is_warned_of_where_nothing_is_stochastic(self, cases):
        data = cases.dataset("sequence")
        interpreter = DeepLift(cases.model("MLP", data))
        interpreter.model.train()
        with pytest.warns(TrainingModeWarning, match="none of its modules is known to be stochastic"):
            interpreter.attribute(**cases.batch(data))

    def test_is_not_warned_of_in_eval_mode(self, cases):
        data = cases.dataset("sequence")
        made = cases.model("Transformer", data).train()
        with warnings.catch_warnings():
            warnings.simplefilter("error", TrainingModeWarning)
            DeepLift(made).attribute(**cases.batch(data))
        assert not made.training

    def test_makes_the_interpreter_put_the_model_into_eval_mode_only_once(self, sequences):
        data, given = sequences
        interpreter = DeepLift(Layered(data).train())
        assert not interpreter.model.training
        interpreter.model.train()
        interpreter.attribute(**given)
        assert interpreter.model.training

    @pytest.mark.parametrize("name", MODELS[:-1])
    def test_gives_the_same_for_the_same_seed(self, cases, name):
        data = cases.dataset(*cases.MIXED[name])
        made, given = cases.model(name, data), cases.batch(data)
        interpreter = DeepLift(made)
        made.train()
        found = []
        for seed in (1, 1, 2):
            torch.manual_seed(seed)
            found.append(cases.flat(interpreter.attribute(**given)))
        assert torch.equal(found[0], found[1])
        assert not torch.equal(found[0], found[2])

    @pytest.mark.parametrize("jittery", [False, True])
    def test_shows_both_streams_the_same_draws(self, sequences, untouched, jittery):
        """Only then do contributions of a ReLU network add up before rescaling."""
        data, given = sequences
        made = Layered(data, nn.Dropout(0.5), Jittery(data, 8) if jittery else None)
        interpreter = DeepLift(made)
        made.train()
        with untouched(made):
            found = interpreter.explain(**given)
        assert found.convergence_delta.abs().max() < 1e-5
        assert (found.output - found.baseline_output).abs().max() > 1e-2

    @pytest.mark.parametrize("momentum", [0.1, None])
    def test_leaves_running_statistics(self, sequences, untouched, momentum):
        data, given = sequences
        made = Layered(data, nn.BatchNorm1d(8, momentum=momentum))
        interpreter = DeepLift(made)
        made.train()
        with untouched(made), pytest.warns(TrainingModeWarning, match=r"layer \(BatchNorm1d\)"):
            interpreter.attribute(**given)
        assert made.layer.num_batches_tracked == 0


def test_embedding_models_that_draw_and_take_notes_are_left_as_they_were(sequences, untouched):
    data, given = sequences
    made = Layered(data, embedding=Jittery(data, 8)).eval()
    with untouched(made):
        delta = DeepLift(made).explain(**given).convergence_delta
    assert delta.abs().max() < 1e-5


@pytest.mark.parametrize("name", ["StageNet", "Transformer", "MLP"])
def test_threads_do_not_disturb_each_other(cases, untouched, name):
    """One model, two batches and two rule sets, in four threads."""
    data = cases.dataset(*cases.MIXED[name])
    made = cases.model(name, data)
    halves = [cases.batch(data, range(4)), cases.batch(data, range(4, 8))]
    jobs = [(DeepLift(made, rules=rules), half) for rules in ("rescale", "pyhealth") for half in halves]
    expected = [cases.flat(interpreter.attribute(**half)) for interpreter, half in jobs]
    found = [[] for _ in jobs]
    start = threading.Barrier(len(jobs))

    def work(position):
        interpreter, half = jobs[position]
        start.wait()
        found[position].extend(cases.flat(interpreter.attribute(**half)) for _ in range(4))

    threads = [threading.Thread(target=work, args=(position,)) for position in range(len(jobs))]
    with untouched(made):
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert [len(repeated) for repeated in found] == [4] * len(jobs)
    for repeated, one in zip(found, expected, strict=True):
        assert all(torch.equal(again, one) for again in repeated)
