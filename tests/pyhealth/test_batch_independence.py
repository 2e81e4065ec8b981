"""A patient's attributions are the same alone, in a batch and in a batch padded further; padding gets exactly 0."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given as draws
from hypothesis import settings
from hypothesis import strategies as st

from deeplift_fast import DeepLift

SEQUENCE_MODELS = ["StageNet", "StageAttentionNet", "Transformer", "Transformer, 2 layers"]
SEQUENCES = ["sequence", "nested_sequence", "nested_sequence_floats", "timeseries"]
TIMED = ["stagenet", "stagenet_nested", "stagenet_tensor", "stagenet_untimed"]
FLAT = ["tensor", "tensor_with_zeros", "multi_hot"]
EVERY_PAIR = (
    [(name, (kind,)) for name in SEQUENCE_MODELS for kind in SEQUENCES + TIMED]
    + [(name, (kind,)) for name in SEQUENCE_MODELS[2:] for kind in FLAT]
    + [("MLP", (kind,)) for kind in ("sequence", "stagenet", *FLAT)]
)
pytestmark = pytest.mark.filterwarnings("ignore:Feature .* does not have time intervals", "ignore:.*before rescaling")


def padded(cases, made, given, steps=3, codes=2):
    """The batch with more steps, and with more codes per visit, of zeros."""
    return {key: pad_feature(cases, made, key, given[key], steps, codes) for key in made.feature_keys}


def pad_feature(cases, made, key, feature, steps, codes):
    value = cases.value_of(feature)
    is_token = made.dataset.input_processors[key].is_token()
    if not is_token and value.dim() < 3:
        return feature

    def pad(tensor):
        if tensor is None:
            return None
        inner = [0, codes] if is_token and tensor.dim() == 3 else [0, 0] * (tensor.dim() - 2)
        return F.pad(tensor, [*inner, 0, steps])

    return tuple(map(pad, feature)) if isinstance(feature, tuple) else pad(feature)


def cropped(found, like):
    """One patient's contributions without the padding that the batch gave it."""
    return {key: found[key][tuple(slice(n) for n in value.shape)] for key, value in like.items()}


def largest_differences(cases, made, data):
    """Of attributions in a batch and in one padded further from those of each patient alone."""
    together = cases.batch(data)
    in_batch = DeepLift(made).attribute(**together)
    further = DeepLift(made).attribute(**padded(cases, made, together))
    worst = 0.0
    for patient in range(len(data)):
        alone = DeepLift(made).attribute(**cases.batch(data, [patient]))
        for other in (in_batch, further):
            one = {key: found[patient : patient + 1] for key, found in other.items()}
            difference = cases.flat(cropped(one, alone)) - cases.flat(alone)
            worst = max(worst, float(difference.abs().max() / cases.flat(alone).abs().max().clamp(min=1)))
    return worst


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(("name", "kinds"), EVERY_PAIR)
def test_patients_do_not_depend_on_their_batch(cases, name, kinds):
    data = cases.dataset(*kinds, patients=5)
    assert largest_differences(cases, cases.model(name, data, scale=1.5), data) < 1e-10


@pytest.mark.parametrize("name", [*SEQUENCE_MODELS, "MLP"])
def test_patients_do_not_depend_on_their_batch_in_float32(cases, name):
    data = cases.dataset(*cases.MIXED[name])
    assert largest_differences(cases, cases.model(name, data), data) < 1e-5


@pytest.mark.parametrize(("name", "kinds"), EVERY_PAIR)
def test_padding_gets_exactly_zero(cases, name, kinds):
    data = cases.dataset(*kinds, patients=5)
    made = cases.model(name, data, scale=1.5)
    batch = padded(cases, made, cases.batch(data))
    found = DeepLift(made).attribute(**batch)
    for key, empty in cases.unknown_baseline(made, batch).items():
        assert (found[key][empty == 0] == 0).all()


@pytest.mark.parametrize("name", SEQUENCE_MODELS)
def test_a_patient_without_codes_gets_zeros(cases, name):
    data = cases.dataset("sequence", "timeseries")
    made, batch = cases.model(name, data), cases.batch(data)
    batch["sequence"][2] = 0
    found, delta = DeepLift(made).attribute(None, None, True, **batch)
    assert (found["sequence"][2] == 0).all()
    assert all(torch.isfinite(part).all() for part in (*found.values(), delta))


class TestMask:
    """A mask that the schema holds says what is real."""

    @pytest.fixture
    def visits(self, cases):
        """A Transformer whose schema has a mask of visits, over visits of codes."""
        data = cases.dataset.__wrapped__("nested_sequence")
        data.input_processors["nested_sequence"].schema = lambda: ("mask", "value")
        return cases.model("Transformer, 2 layers", data), cases.batch(data)["nested_sequence"]

    def test_of_visits_leaves_padding_among_their_codes(self, visits):
        made, codes = visits
        mask = (codes != 0).any(-1)
        found = DeepLift(made).attribute(nested_sequence=(mask, codes))["nested_sequence"]
        assert (found[codes == 0] == 0).all()
        assert (found[codes > 1] != 0).any()
        wider = DeepLift(made).attribute(nested_sequence=(mask, F.pad(codes, [0, 4])))["nested_sequence"]
        torch.testing.assert_close(wider[..., :-4], found, rtol=1e-5, atol=1e-5)

    def test_of_codes_hides_codes(self, visits):
        made, codes = visits
        mask = codes != 0
        mask[:, 0, 0] = False
        found = DeepLift(made).attribute(nested_sequence=(mask, codes))["nested_sequence"]
        assert (found[~mask] == 0).all()

    def test_of_steps_counts_a_step_of_zeros_as_real(self, cases):
        data = cases.dataset.__wrapped__("timeseries")
        data.input_processors["timeseries"].schema = lambda: ("value", "mask")
        made, rows = cases.model("Transformer", data), cases.batch(data)["timeseries"]
        mask = (rows != 0).any(-1)
        rows[:, 0] = 0
        found = DeepLift(made).attribute(timeseries=(rows, mask))["timeseries"]
        assert (found[:, 0] != 0).all()
        assert (found[~mask] == 0).all()


@st.composite
def ragged_batches(draw, name):
    """Codes and visits in any number, unknown codes among them, and patients who have none.

    A visit without codes stays behind the others, except with StageNet: attention gives it, as a query, the mean over
    all steps, so the models' own outputs depend on how many steps of padding there are.
    """
    patients, visits, codes, events = (draw(st.integers(1, 4)) for _ in range(4))
    made_up = torch.Generator().manual_seed(draw(st.integers(0, 1000)))
    nested = torch.randint(0, 8, (patients, visits, codes), generator=made_up)
    flat = torch.randint(0, 8, (patients, events), generator=made_up)
    if name != "StageNet":
        nested[..., :1].clamp_(min=1)
        flat.clamp_(min=1)
        nested[torch.arange(visits) >= torch.randint(0, visits + 1, (patients, 1), generator=made_up)] = 0
        flat[torch.arange(events) >= torch.randint(0, events + 1, (patients, 1), generator=made_up)] = 0
    return {"nested_sequence": nested, "sequence": flat}


@settings(max_examples=25)
@draws(data=st.data())
def test_random_ragged_batches(cases, data):
    name = data.draw(st.sampled_from(SEQUENCE_MODELS))
    made = cases.model(name, cases.dataset("nested_sequence", "sequence"), seed=data.draw(st.integers(0, 3)))
    batch = data.draw(ragged_batches(name))
    found, delta = DeepLift(made).attribute(None, None, True, **batch)
    wider, wider_delta = DeepLift(made).attribute(None, None, True, **padded(cases, made, batch))
    torch.testing.assert_close(cropped(wider, batch), found, rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(wider_delta, delta, rtol=1e-4, atol=1e-5)
    assert all((found[key][value == 0] == 0).all() for key, value in batch.items())
