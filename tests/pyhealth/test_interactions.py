"""`DeepLift.interactions` against differences of outputs, on both routes."""

import itertools

import pytest
import torch
from interaction_cases import MANY_CODES, close, model_of, positions_of, samples_of, value_of, whole

import deeplift_fast
from deeplift_fast import DeepLift, baselines
from deeplift_fast.pyhealth.fused import plan

pytestmark = pytest.mark.filterwarnings("ignore:Feature .* does not have time intervals", "ignore:.*before rescaling")

TWO_CODES = [["a"], ["b", "a"], ["c", "b", "c"], ["d", "e"]]
ROUTES = [  # model, kind of feature, size of the embedding of padding
    ("StageNet", "stagenet", 0.0),
    ("Transformer", "nested_sequence", 0.0),
    ("Transformer", "sequence", 0.3),
    ("MLP", "sequence", 0.0),
    ("RNN", "nested_sequence", 0.0),
    ("RETAIN", "nested_sequence", 0.0),
]


@pytest.fixture(params=["operation by operation", "fused", "fused, as on a GPU"])
def fuse(request, monkeypatch):
    monkeypatch.setattr(plan, "static_on_cpu", "GPU" in request.param)
    return "fused" in request.param


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(("name", "kind", "padding"), ROUTES)
@pytest.mark.parametrize(("rules", "baseline"), [("complete", "removed"), ("complete", "unk"), ("rescale", "unk")])
def test_two_players_are_a_four_way_difference(name, kind, padding, rules, baseline, fuse):
    if fuse and name == "RETAIN":
        pytest.skip("has no fused layers")
    data = samples_of(kind, TWO_CODES)
    made, given = model_of(name, data, padding), whole(data)
    deeplift = DeepLift(made, rules=rules, fuse=fuse, baseline=baseline)
    found = deeplift.interactions(**given)
    assert [len(each) for each in found.players] == [1, 2, 2, 2]
    both = found.output - found.without[:, 0] - found.without[:, 1] + found.baseline_output
    close(found.values[1:, 0, 1], both[1:])
    assert found.values[1:, 0, 1].abs().max() > 1e-4
    exact = deeplift.interactions(exact=True, **given)
    assert exact.players == found.players
    close(found.values, exact.values)
    close(found.without, exact.without)
    close(found.baseline_output, exact.baseline_output)


def with_code(given, mask, token):
    """The batch with another code at these positions."""
    changed = torch.where(mask, token, value_of(given))
    return {**given, "codes": (given["codes"][0], changed) if isinstance(given["codes"], tuple) else changed}


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(
    ("name", "kind", "steps"),
    [*((name, kind, 1) for name, kind, padding in ROUTES if not padding), ("StageNet", "stagenet", 2)],
)
def test_each_change_is_that_without_the_other(name, kind, steps, fuse):
    """Under `"unk"` a player at the baseline is the unknown code in the record."""
    if fuse and name == "RETAIN":
        pytest.skip("has no fused layers")
    data = samples_of(kind, MANY_CODES)
    made, given = model_of(name, data), whole(data)
    deeplift = DeepLift(made, rules="complete", fuse=fuse, baseline="unk")
    found = deeplift.interactions(top=3, steps=steps, **given)
    full = deeplift.explain(steps=steps, **given)
    close(found.output, full.output)
    close(found.baseline_output, full.baseline_output)
    value = value_of(given)
    expected = torch.full((4, 3, 3), torch.nan)
    for sample, players in enumerate(found.players):
        masks = [positions_of(player, value, sample) for player in players]
        own = torch.stack([full.contributions["codes"][mask].sum() for mask in masks])
        close(found.contributions[sample, : len(players)], own)
        change = torch.full((3, 3), torch.nan)
        for i, mask in enumerate(masks):
            variant = deeplift.explain(steps=steps, **with_code(given, mask, 1))
            close(found.without[sample, i], variant.output[sample])
            for j, other in enumerate(masks):
                change[i, j] = own[j] - variant.contributions["codes"][other].sum()
        expected[sample] = change + change.T
    expected.diagonal(dim1=1, dim2=2).fill_(torch.nan)
    close(found.values, expected)


BASELINES = {
    "removed": "removed",
    "unk": "unk",
    "an embedding": {"codes": torch.full((8,), 0.25, dtype=torch.float64)},
    "a token": {"codes": 3},
    "several": ["removed", "unk", {"codes": 4}],
}


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(("name", "kind", "padding"), ROUTES)
@pytest.mark.parametrize("baseline", BASELINES)
def test_outputs_without_players_are_those_at_the_baseline_there(name, kind, padding, baseline):
    """`explain(at_baseline=…)` moves the same codes to the baseline, in the other stream."""
    data = samples_of(kind, MANY_CODES)
    made, given = model_of(name, data, padding), whole(data)
    deeplift = DeepLift(made, rules="complete", baseline=BASELINES[baseline])
    found = deeplift.interactions(top=3, **given)
    exact = deeplift.interactions(players=found.players, exact=True, **given)
    close(found.without, exact.without)
    for sample, players in enumerate(found.players):
        masks = [positions_of(player, value_of(given), sample) for player in players]

        def without(mask, sample=sample):
            at = deeplift.explain(at_baseline={"codes": mask}, **given).baseline_output
            return (at.mean(0) if at.dim() > 1 else at)[sample]

        for i, mask in enumerate(masks):
            close(found.without[sample, i], without(mask))
        for i, j in itertools.combinations(range(len(players)), 2):
            joint = found.output[sample] - found.without[sample, i] - found.without[sample, j]
            close(exact.values[sample, i, j], joint + without(masks[i] | masks[j]))
            assert exact.values[sample, i, j] == exact.values[sample, j, i]
    assert found.baseline == exact.baseline == deeplift.explain(**given).baseline


@pytest.mark.usefixtures("float64")
def test_fitted_baselines(cases):
    data = samples_of("stagenet", MANY_CODES)
    made, given = model_of("StageNet", data), whole(data)
    for baseline in (baselines.mean(data, made), baselines.typical(data)):
        fused, generic = (
            DeepLift(made, rules="complete", baseline=baseline, fuse=fuse).interactions(**given)
            for fuse in (True, False)
        )
        close(fused.values, generic.values)
        close(fused.without, generic.without)
        assert fused.values.nan_to_num().abs().max() > 1e-4
        assert fused.baseline == baseline.name


@pytest.mark.usefixtures("float64")
def test_an_embedding_of_its_own_for_each_token():
    data = samples_of("sequence", MANY_CODES)
    made, given = model_of("MLP", data), whole(data)
    embedding = torch.rand(*given["codes"].shape, 8)
    with pytest.warns(deeplift_fast.FusionWarning):
        found = DeepLift(made, rules="complete").interactions(baseline={"codes": embedding}, **given)
    exact = DeepLift(made, rules="complete").interactions(
        baseline={"codes": embedding}, players=found.players, exact=True, **given
    )
    close(found.without, exact.without)


@pytest.mark.parametrize("rules", ["complete", "rescale"])
def test_an_additive_model_has_none(rules):
    data = samples_of("nested_sequence", MANY_CODES)
    made, given = model_of("LogisticRegression", data), whole(data)
    deeplift = DeepLift(made, rules=rules, baseline="removed")
    found = deeplift.interactions(**given)
    assert found.contributions.nan_to_num().abs().max() > 0.1
    for each in (found, deeplift.interactions(exact=True, **given)):
        torch.testing.assert_close(each.values.nan_to_num(), torch.zeros(4, 6, 6), rtol=0, atol=2e-6)


@pytest.mark.parametrize(("name", "kind", "padding"), ROUTES)
def test_shapes_dtypes_and_what_is_not_there(name, kind, padding, fuse):
    data = samples_of(kind, MANY_CODES)
    made, given = model_of(name, data, padding), whole(data)
    found = DeepLift(made, rules="complete", fuse=fuse).interactions(top=5, **given)
    counts = [4, 2, 5, 1]
    assert [len(each) for each in found.players] == counts
    assert found.values.shape == (4, 5, 5)
    assert found.contributions.shape == found.without.shape == (4, 5)
    assert found.output.shape == found.baseline_output.shape == found.target.shape == (4,)
    assert {found.values.dtype, found.contributions.dtype, found.without.dtype, found.output.dtype} == {torch.float32}
    assert found.target.dtype == torch.int64
    assert not found.exact
    for sample, count in enumerate(counts):
        there = torch.arange(5) < count
        assert torch.equal(~found.contributions[sample].isnan(), there)
        assert torch.equal(~found.without[sample].isnan(), there)
        pairs = there & there[:, None] & ~torch.eye(5, dtype=torch.bool)
        assert torch.equal(~found.values[sample].isnan(), pairs)
        sizes = found.contributions[sample, :count].abs()
        assert torch.equal(sizes, sizes.sort(descending=True).values)
    assert torch.equal(found.values.nan_to_num(), found.values.mT.nan_to_num())


def test_players_are_codes_with_all_their_positions():
    data = samples_of("nested_sequence", MANY_CODES)
    made, given = model_of("Transformer", data), whole(data)
    vocabulary = data.input_processors["codes"].code_vocab
    found = DeepLift(made, rules="complete").interactions(top=64, **given)
    expected = [
        {"a": ((0, 0), (1, 2)), "b": ((1, 0),), "c": ((1, 1),), "d": ((1, 3),)},
        {"e": ((0, 0),), "f": ((1, 0),)},
    ]
    for players, positions in zip(found.players, expected, strict=False):
        assert {player.code: player.positions for player in players} == positions
        assert all(player.token == vocabulary[player.code] and player.feature == "codes" for player in players)
    assert [len(each) for each in found.players] == [4, 2, 6, 1]
    assert {player.code for player in found.players[2]} == set("bghaci")


def test_a_code_in_two_features_is_two_players(cases):
    data = cases.dataset("stagenet", "stagenet_nested", "stagenet_tensor", patients=5)
    made, given = cases.model("StageNet", data), cases.batch(data)
    deeplift = DeepLift(made, rules="complete")
    found = deeplift.interactions(top=20, **given)
    for players in found.players:
        assert len({(player.feature, player.token) for player in players}) == len(players)
    assert {player.feature for players in found.players for player in players} == {"stagenet", "stagenet_nested"}
    # The features meet in one linear layer, so that only codes of one feature act together.
    for players, values in zip(found.players, found.values, strict=True):
        apart = [[a.feature != b.feature for b in players] for a in players]
        count = len(players)
        assert values[:count, :count][torch.tensor(apart)].abs().max() < 1e-6
    assert found.values.nan_to_num().abs().max() > 1e-4


@pytest.mark.usefixtures("float64")
def test_every_patient_has_a_class_of_its_own(cases, fuse):
    data = cases.dataset("sequence", "nested_sequence", "timeseries", label="multiclass")
    made, given = cases.model("Transformer", data, seed=2, scale=1.5), cases.batch(data)
    deeplift = DeepLift(made, rules="complete", fuse=fuse)
    found = deeplift.interactions(top=3, **given)
    logits = torch.stack([deeplift.explain(target_class_idx=i, **given).output for i in range(3)], 1)
    assert torch.equal(found.target, logits.argmax(1))
    assert len(set(found.target.tolist())) > 1
    close(found.output, logits.amax(1))
    for target in range(3):
        mine = found.target == target
        named = deeplift.interactions(players=found.players, target_class_idx=target, **given)
        close(found.values[mine], named.values[mine])
        close(found.without[mine], named.without[mine])
        exact = deeplift.interactions(players=found.players, target_class_idx=target, exact=True, **given)
        close(found.without[mine], exact.without[mine])
    exact = deeplift.interactions(players=found.players, exact=True, **given)
    assert torch.equal(exact.target, found.target)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", ["StageNet", "StageAttentionNet", "Transformer", "Transformer, 2 layers", "MLP"])
def test_patients_do_not_depend_on_their_batch(cases, name):
    data = cases.dataset(*cases.MIXED[name], patients=5)
    made = cases.model(name, data, scale=1.5)
    deeplift = DeepLift(made, rules="complete")
    together = deeplift.interactions(top=4, **cases.batch(data))
    for sample in range(5):
        alone = deeplift.interactions(top=4, **cases.batch(data, [sample]))
        count = len(alone.players[0])
        assert alone.players[0] == together.players[sample]
        close(alone.values[0], together.values[sample, :count, :count])
        close(alone.contributions[0], together.contributions[sample, :count])
        close(alone.without[0], together.without[sample, :count])
        close(alone.output[0], together.output[sample])


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("rows_at_once", [None, 1, 5])
def test_rows_and_their_number(monkeypatch, exact, rows_at_once):
    data = samples_of("sequence", MANY_CODES)
    made, given = model_of("MLP", data), whole(data)
    deeplift = DeepLift(made, rules="complete", fuse=False)
    expected = deeplift.interactions(top=5, exact=exact, **given)
    attributed, scored = [], []
    run, logits = deeplift._generic.run, deeplift._generic.logits
    monkeypatch.setattr(
        deeplift._generic, "run", lambda request, batch, x0: attributed.append(batch.size) or run(request, batch, x0)
    )
    monkeypatch.setattr(deeplift._generic, "logits", lambda batch: scored.append(batch.size) or logits(batch))
    found = deeplift.interactions(top=5, exact=exact, rows_at_once=rows_at_once, **given)
    assert found.players == expected.players
    torch.testing.assert_close(found.values, expected.values, equal_nan=True)
    counts = [4, 2, 5, 1]
    if exact:
        assert attributed == [4]
        assert sum(scored) == sum(1 + n + n * (n - 1) // 2 for n in counts)
    else:
        assert sum(attributed) == sum(1 + n for n in counts)
        assert not scored
    if rows_at_once:
        assert max((attributed + scored)[1 + exact :]) <= rows_at_once
    deeplift.interactions(players=[("codes", "a"), ("codes", "b")], exact=True, **whole(data.subset([0, 2])))
    assert sum(attributed) == (4 if exact else sum(1 + n for n in counts))


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", ["StageNet", "Transformer"])
@pytest.mark.parametrize("draws", ["training mode", "a module in training mode", "a hook"])
def test_a_model_that_draws_numbers_by_row(name, draws):
    """Records without a code see the draws of the whole record, so that two players are a four-way difference."""
    data = samples_of("stagenet" if name == "StageNet" else "sequence", [["a", "b"], ["b", "a", "a"], ["c", "b", "c"]])
    made, given = model_of(name, data), whole(data)
    if draws == "a hook":
        made.fc.register_forward_hook(lambda module, args, output: output * (1 + torch.rand_like(output)))
    deeplift = DeepLift(made, rules="complete", fuse=False)
    for module in made.modules():
        module.training |= draws == "training mode" or ("module" in draws and isinstance(module, torch.nn.Dropout))
    found = deeplift.interactions(**given)
    exact = deeplift.interactions(exact=True, **given)
    close(found.values[:, 0, 1], found.output - found.without.sum(1) + found.baseline_output)
    close(found.values, exact.values)
    close(found.without, exact.without)
    assert found.values[:, 0, 1].abs().max() > 1e-4
