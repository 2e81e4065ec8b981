"""The quotient rule: its closed forms written once more, and every form in which models write an inverse."""

import warnings

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from deeplift_fast import attribute
from deeplift_fast.core.attribution import explain
from deeplift_fast.core.options import Options
from deeplift_fast.rules.quotient import InverseProductRule, is_inverse

EXACT = {"rtol": 1e-12, "atol": 1e-12}
number = st.floats(-6, 6).map(lambda v: round(v, 3))
divisor = number.filter(lambda v: abs(v) > 0.05)


def draw(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def multipliers(call, x, x0, m=None):
    """The multipliers of `Σ m·call(x)`, for inputs of one sample `[1, …]` or several."""
    m = 1.0 if m is None else m
    return explain(lambda *xs: (call(*xs) * m).flatten(1).sum(1), x, x0, options=Options("complete")).multipliers


def over(a, b):
    return a * torch.reciprocal(b)


def rules_of(call, x, x0):
    report = attribute(lambda *xs: call(*xs).flatten(1).sum(1), x, x0, rules="complete").report
    return {(row.operation, row.rule) for row in report}


@settings(deadline=None)
@given(a=number, a0=number, b=divisor, b0=divisor)
def test_a_quotient(a, a0, b, b0):
    if b * b0 > 0:
        middle, y = (b + b0) / 2, (a / b + a0 / b0) / 2
        expected = 1 / middle, -y / middle
    else:
        expected = (1 / b + 1 / b0) / 2, -(a + a0) / 2 / b / b0
    xs, x0s = ([torch.tensor([[v]], dtype=torch.float64) for v in pair] for pair in ((a, b), (a0, b0)))
    for call in (torch.div, lambda a, b: a * torch.reciprocal(b), lambda a, b: a * b**-1):
        for one, due in zip(multipliers(call, xs, x0s), expected, strict=True):
            torch.testing.assert_close(one.item(), due, **EXACT)


@settings(deadline=None)
@given(a=number, a0=number, r=divisor, r0=divisor)
def test_a_product_with_an_inverse_has_weights(a, a0, r, r0):
    share = r0 / (r + r0) if r * r0 > 0 else 0.5
    expected = share * r + (1 - share) * r0, -(share * a0 + (1 - share) * a) * r * r0
    b, b0 = 1 / r, 1 / r0
    xs, x0s = ([torch.tensor([[v]], dtype=torch.float64) for v in pair] for pair in ((a, b), (a0, b0)))
    for one, due in zip(multipliers(lambda a, b: b.reciprocal() * a, xs, x0s), expected, strict=True):
        torch.testing.assert_close(one.item(), due, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("call", [lambda x: 3 / x, lambda x: torch.tensor([3.0, 2.0]).double() / x])
def test_a_constant_over_something_gets_the_secant(call):
    x, x0 = torch.tensor([[2.0, -1.0]]).double(), torch.tensor([[5.0, 4.0]]).double()
    torch.testing.assert_close(multipliers(call, x, x0), (call(x) - call(x0)) / (x - x0), **EXACT)


def of_norm(m, c, c0, eps, centred, count):
    """`centred((m − c̄·(Σ m·ȳ)/(n·σ̄))/σ̄)` over the last dimension, for `σ = √(Σc²/n + eps)`."""
    ends = []
    for each in (c, c0):
        each = each - each.mean(-1, keepdim=True) if centred else each
        size = (each.square().sum(-1, keepdim=True) / count + eps).sqrt()
        ends.append((each, size, each / size))
    middle, size, y = ((one + other) / 2 for one, other in zip(*ends, strict=True))
    found = (m - middle * (m * y).sum(-1, keepdim=True) / (count * size)) / size
    return found - found.mean(-1, keepdim=True) if centred else found


# name → the call, how inputs [2, 4, 6] are laid out for the closed form, eps, centred
NORMS = {
    "layer_norm": (lambda x: F.layer_norm(x, (6,)), lambda x: x, 1e-5, True),
    "layer_norm over two": (lambda x: F.layer_norm(x, (4, 6)), lambda x: x.flatten(1), 1e-5, True),
    "rms_norm": (lambda x: F.rms_norm(x, (6,), eps=1e-6), lambda x: x, 1e-6, False),
    "group_norm": (lambda x: F.group_norm(x, 2), lambda x: x.reshape(2, 2, 12), 1e-5, True),
    "instance_norm": (F.instance_norm, lambda x: x, 1e-5, True),
    "aten.native_layer_norm": (
        lambda x: torch.native_layer_norm(x, [6], None, None, 1e-5)[0], lambda x: x, 1e-5, True,
    ),
    "aten.native_group_norm": (
        lambda x: torch.native_group_norm(x, None, None, 2, 4, 6, 2, 1e-5)[0],
        lambda x: x.reshape(2, 2, 12), 1e-5, True,
    ),
    "aten._fused_rms_norm": (
        lambda x: torch.ops.aten._fused_rms_norm(x, [6], None, 1e-6)[0], lambda x: x, 1e-6, False,
    ),
    "torch.instance_norm": (
        lambda x: torch.instance_norm(x, torch.full((4,), 2.0).double(), None, None, None, True, 0.1, 1e-5, False) / 2,
        lambda x: x, 1e-5, True,
    ),
    "torch.batch_norm in training": (
        lambda x: torch.batch_norm(
            x.reshape(1, 8, 6), torch.full((8,), 2.0).double(), None, None, None, True, 0.1, 1e-5, False
        ).reshape(x.shape) / 2,
        lambda x: x, 1e-5, True,
    ),
    "aten.native_batch_norm in training": (
        lambda x: torch.native_batch_norm(x.reshape(1, 8, 6), None, None, None, None, True, 0.1, 1e-5)[0].reshape(
            x.shape
        ),
        lambda x: x, 1e-5, True,
    ),
    "batch_norm in training": (
        lambda x: F.batch_norm(x.reshape(1, 8, 6), None, None, training=True).reshape(x.shape),
        lambda x: x,
        1e-5,
        True,
    ),
}  # fmt: skip


@pytest.mark.parametrize("start", ["zeros", "constant", "another", "nearby"])
@pytest.mark.parametrize("name", NORMS)
def test_norms_have_their_closed_form(name, start):
    call, laid_out, eps, centred = NORMS[name]
    x, m = draw(2, 4, 6), draw(2, 4, 6, seed=1)
    x0 = {
        "zeros": torch.zeros_like(x),
        "constant": torch.full_like(x, 0.7),
        "another": draw(2, 4, 6, seed=2),
        "nearby": x * (1 + 1e-9),
    }[start]
    count = laid_out(x).shape[-1]
    expected = of_norm(*(laid_out(t) for t in (m, x, x0)), eps, centred, count).reshape(x.shape)
    torch.testing.assert_close(multipliers(call, x, x0, m), expected, **EXACT)
    found = attribute(lambda x: call(x).flatten(1).sum(1), x, x0, rules="complete")
    torch.testing.assert_close(found.output, call(x).flatten(1).sum(1), **EXACT)


def test_normalize_and_cosine_similarity_have_theirs():
    x, x0, m = draw(3, 6), draw(3, 6, seed=1), draw(3, 6, seed=2)
    found = multipliers(lambda x: F.normalize(x, dim=-1), x, x0, m)
    torch.testing.assert_close(found, of_norm(m, x, x0, 0.0, False, 1), **EXACT)
    z, z0 = draw(3, 6, seed=3), draw(3, 6, seed=4)
    found = multipliers(lambda x, z: F.cosine_similarity(x, z).unsqueeze(1), (x, z), (x0, z0))
    units = [(F.normalize(t) + F.normalize(t0)) / 2 for t, t0 in ((x, x0), (z, z0))]
    torch.testing.assert_close(found[0], of_norm(units[1], x, x0, 0.0, False, 1), **EXACT)
    torch.testing.assert_close(found[1], of_norm(units[0], z, z0, 0.0, False, 1), **EXACT)


def spread(x):
    return x.square().mean(-1, keepdim=True) + 1e-5


def _in_place(x):
    held = x * 1
    held /= spread(x).sqrt()
    return held


def _multiplied_in_place(x):
    held = x * 1
    held *= spread(x).rsqrt()
    return held


def _raised_in_place(x):
    return x * spread(x).add(0).pow_(-0.5)


class Root(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.full((6,), 3.0, dtype=torch.float64))

    def forward(self, x):
        return x * (self.weight * torch.rsqrt(spread(x))) / 3


def _batched_diagonal(x):
    return (x.unsqueeze(-2) @ torch.diag_embed(spread(x).rsqrt().expand_as(x))).squeeze(-2)


# x over the root of its spread, [5, 6], as models write it.
FORMS = {
    "rsqrt": lambda x: x * torch.rsqrt(spread(x)),
    "the inverse first": lambda x: spread(x).rsqrt() * x,
    "** -0.5": lambda x: x * spread(x) ** -0.5,
    "torch.pow": lambda x: x * torch.pow(spread(x), -0.5),
    "pow by name": lambda x: x * torch.pow(input=spread(x), exponent=-0.5),
    "pow, a tensor": lambda x: x * spread(x).pow(torch.tensor(-0.5, dtype=torch.float64)),
    "** of a tensor": lambda x: x * spread(x) ** torch.tensor(-0.5),
    "float_power": lambda x: x * spread(x).float_power(-0.5),
    "over sqrt": lambda x: x / torch.sqrt(spread(x)),
    "true_divide": lambda x: torch.true_divide(x, spread(x).sqrt()),
    "divide": lambda x: torch.divide(x, other=spread(x).sqrt()),
    "div by name": lambda x: torch.div(input=x, other=spread(x).sqrt()),
    "aten.div": lambda x: torch.ops.aten.div.Tensor(x, spread(x).sqrt()),
    "over a root as a power": lambda x: x / spread(x) ** 0.5,
    "reciprocal": lambda x: x * torch.reciprocal(torch.sqrt(spread(x))),
    "1 over": lambda x: x * (1 / spread(x).sqrt()),
    "2.5 over": lambda x: x * (2.5 / spread(x).sqrt()) / 2.5,
    "a tensor over": lambda x: x * (torch.full((6,), -2.0, dtype=x.dtype) / spread(x).sqrt()) / -2,
    "to the −1": lambda x: x * spread(x).sqrt() ** -1,
    "the root of an inverse": lambda x: x * torch.sqrt(1 / spread(x)),
    "an inverse to the 1/2": lambda x: x * spread(x).reciprocal() ** 0.5,
    "mul_": lambda x: (x * 1).mul_(torch.rsqrt(spread(x))),
    "div_": lambda x: (x * 1).div_(torch.sqrt(spread(x))),
    "/=": _in_place,
    "*=": _multiplied_in_place,
    "rsqrt_": lambda x: x * spread(x).add(0).rsqrt_(),
    "pow_": _raised_in_place,
    "addcdiv": lambda x: torch.addcdiv(torch.zeros_like(x), x, spread(x).sqrt(), value=2.0) / 2,
    "addcmul": lambda x: torch.addcmul(torch.zeros_like(x), x, spread(x).rsqrt(), value=2.0) / 2,
    "views": lambda x: x * spread(x).rsqrt().squeeze(-1)[:, None].reshape(1, 5, 1).expand(1, 5, 6).view(5, 6),
    "transposed": lambda x: (x.t() * spread(x).rsqrt().transpose(0, 1)).t().contiguous(),
    "cast": lambda x: x * spread(x).rsqrt().to(torch.float64).clone().type_as(x).contiguous(),
    "detached": lambda x: x * spread(x).rsqrt().detach(),
    "chosen": lambda x: x * spread(x).rsqrt().expand(5, 6)[:, 2:3].repeat(1, 6),
    "weighted": lambda x: x * (-3 * spread(x).rsqrt()).div(-3),
    "with a parameter": lambda x: Root()(x),
    "einsum": lambda x: torch.einsum("bi,b->bi", x, spread(x).rsqrt()[:, 0]),
    "einsum of three": lambda x: torch.einsum("bi,ij,b->bj", x, torch.eye(6).double(), spread(x).rsqrt()[:, 0]),
    "matmul": _batched_diagonal,
    "bmm": lambda x: torch.bmm(spread(x).rsqrt().unsqueeze(-1), x.unsqueeze(1)).squeeze(1),
    "norm": lambda x: x / torch.sqrt(x.norm(dim=-1, keepdim=True) ** 2 / 6 + 1e-5),
}


@pytest.mark.parametrize("start", ["zeros", "another"])
@pytest.mark.parametrize("name", FORMS)
def test_every_form_of_a_norm_is_the_same(name, start):
    x, m = draw(5, 6), draw(5, 6, seed=1)
    x0 = torch.zeros_like(x) if start == "zeros" else draw(5, 6, seed=2)
    tolerance = {"rtol": 1e-10, "atol": 1e-10} if name in ("float_power", "norm", "** of a tensor") else EXACT
    torch.testing.assert_close(multipliers(FORMS[name], x, x0, m), of_norm(m, x, x0, 1e-5, False, 6), **tolerance)


def test_the_report_names_the_rule():
    x, x0 = draw(5, 6), torch.zeros(5, 6, dtype=torch.float64)
    assert ("mul", "quotient") in rules_of(FORMS["rsqrt"], x, x0)
    assert ("div", "quotient") in rules_of(FORMS["over sqrt"], x, x0)
    assert ("einsum", "quotient") in rules_of(FORMS["einsum"], x, x0)
    assert ("mul", "midpoint") in rules_of(lambda x: x.exp() * spread(x), x, x0)


class TestTheOldForm:
    """λ = ½: the midpoint of the product."""

    @staticmethod
    def midpoint(a, a0, b, b0):
        return (b + b0) / 2, (a + a0) / 2

    def test_of_two_inverses(self):
        x, x0 = draw(4, 3).abs() + 0.3, draw(4, 3, seed=1).abs() + 0.3
        found = multipliers(lambda a, b: a.rsqrt() * b.reciprocal(), (x, x + 1), (x0, x0 + 1))
        parts = self.midpoint(x.rsqrt(), x0.rsqrt(), 1 / (x + 1), 1 / (x0 + 1))
        slopes = (x.rsqrt() - x0.rsqrt()) / (x - x0), (1 / (x + 1) - 1 / (x0 + 1)) / (x - x0)
        for one, part, slope in zip(found, parts, slopes, strict=True):
            torch.testing.assert_close(one, part * slope, rtol=1e-9, atol=1e-9)

    def test_two_inverses_make_one(self):
        x, x0 = draw(4, 3), torch.zeros(4, 3, dtype=torch.float64)
        by_two = multipliers(lambda x: x * (spread(x).rsqrt() * spread(x.flip(1) + 3).rsqrt()), x, x0)
        assert by_two.abs().max() < 10  # half of rsqrt(1e-5) is 158

    @pytest.mark.parametrize("undone", [torch.reciprocal, lambda r: r**-2])
    def test_of_no_inverse(self, undone):
        x, x0 = draw(4, 3), draw(4, 3, seed=1)
        found = multipliers(lambda a, b: a * undone(b.exp().rsqrt()), (x, x), (x0, x0))[0]
        b, b0 = undone(x.exp().rsqrt()), undone(x0.exp().rsqrt())
        torch.testing.assert_close(found, (b + b0) / 2, **EXACT)

    def test_of_complex_numbers(self):
        x, x0 = draw(4, 2), draw(4, 2, seed=1)

        def call(a, b):
            return torch.view_as_real(torch.view_as_complex(a) / torch.view_as_complex(b.exp()))

        found = attribute(lambda a, b: call(a, b).sum(1), (x, x), (x0, x0), rules="complete")
        assert found.convergence_delta.abs().max() < 1e-10


class TestNumerics:
    def test_float32_keeps_its_digits_beside_a_large_inverse(self):
        x, m = draw(64, 16), draw(64, 16, seed=1)
        for form in (FORMS["rsqrt"], FORMS["over sqrt"], FORMS["** -0.5"], lambda x: F.layer_norm(x, (16,))):
            wide, narrow = (
                multipliers(form, x.to(dtype), torch.zeros_like(x, dtype=dtype), m.to(dtype))
                for dtype in (torch.float64, torch.float32)
            )
            torch.testing.assert_close(narrow.double(), wide, rtol=3e-6, atol=3e-6)

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    @pytest.mark.parametrize(
        "call", [*(FORMS[n] for n in ("rsqrt", "over sqrt", "** -0.5")), *(c for c, *_ in list(NORMS.values())[:4])]
    )
    def test_half_types_with_a_row_that_is_zero_in_both_streams(self, call, dtype):
        x = draw(2, 4, 6, dtype=dtype) if "norm" in str(call.__code__.co_names) else draw(5, 6, dtype=dtype)
        x[1] = 0
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found, wide = (
                attribute(lambda x: call(x).float().flatten(1).sum(1), t, rules="complete") for t in (x, x.double())
            )
        assert (found.contributions[1] == 0).all()
        eps = torch.finfo(dtype).eps
        torch.testing.assert_close(found.contributions.double(), wide.contributions, rtol=16 * eps, atol=32 * eps)

    @pytest.mark.parametrize(("b", "b0"), [(1e200, 1e-200), (1e150, 1.5e150), (-1e300, -1e-300)])
    @pytest.mark.parametrize("call", [torch.div, over])
    def test_divisors_far_apart(self, b, b0, call):
        b, b0 = (torch.tensor([[v]], dtype=torch.float64) for v in (b, b0))
        a, a0 = b * 0.5, b0 * 0.25
        found = explain(lambda a, b: call(a, b)[:, 0], (a, b), (a0, b0), options=Options("complete"))
        assert found.convergence_delta.abs() < 1e-12
        assert all(m.isfinite().all() for m in found.multipliers)

    def test_inverses_whose_sum_overflows(self):
        a, r = (torch.tensor([v], requires_grad=True) for v in (0.5, 3e38))
        y = InverseProductRule.apply(a, torch.tensor([0.25]), r, torch.tensor([2e38]))
        found = torch.autograd.grad(y, (a, r))
        torch.testing.assert_close(torch.cat(found), torch.tensor([2.4e38, 0.4 * 0.25 + 0.6 * 0.5]))

    @pytest.mark.parametrize("call", [torch.div, over])
    def test_a_divisor_of_zero_in_one_stream_spoils_no_other_sample(self, call):
        x, b = draw(3, 2), draw(3, 2, seed=1).abs() + 1
        b[0] = 0
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = attribute(lambda x, b: call(x, b).sum(1), (x, b), (x + 1, torch.ones_like(b)), rules="complete")
        assert not found.convergence_delta[0].isfinite()
        assert found.convergence_delta[1:].abs().max() < 1e-12

    @pytest.mark.parametrize("norm", [nn.LayerNorm(7), nn.GroupNorm(1, 7), nn.InstanceNorm1d(1)], ids=repr)
    @pytest.mark.parametrize("constant", [77.7, 1000.3333])
    def test_float32_beside_a_baseline_whose_mean_is_rounded(self, norm, constant):
        """The mean of equal numbers is not exact, and 1/√eps enlarges what is left of them."""
        x, x0, m = draw(5, 7), torch.full((5, 7), constant, dtype=torch.float64), draw(5, 7, seed=1)

        def call(x):
            return F.instance_norm(x[:, None]).squeeze(1) if isinstance(norm, nn.InstanceNorm1d) else norm(x)

        single = multipliers(call, x.float(), x0.float(), m.float())
        norm.double()
        expected = multipliers(call, x.float().double(), x0.float().double(), m)
        norm.float()
        torch.testing.assert_close(single.double(), expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))

    def test_divisors_whose_sum_overflows(self):
        b, b0 = (torch.tensor([[v]], dtype=torch.float64) for v in (1e308, 1.5e308))
        found = attribute(lambda a, b: (a / b)[:, 0], (b, b), (b0 / 2, b0), rules="complete")
        assert found.convergence_delta.abs() < 1e-12

    @pytest.mark.parametrize("name", FORMS)
    def test_at_the_baseline_it_is_the_gradient(self, name):
        x = draw(5, 6)
        leaf = x.clone().requires_grad_()
        # What a model detaches counts as its values do.
        form = FORMS["rsqrt" if name == "detached" else name]
        (gradient,) = torch.autograd.grad((form(leaf) * draw(5, 6, seed=1)).sum(), leaf)
        found = multipliers(FORMS[name], x, x.clone(), draw(5, 6, seed=1))
        torch.testing.assert_close(found, gradient, rtol=1e-6, atol=1e-6)


class TestShapes:
    @pytest.mark.parametrize(
        ("of_a", "of_b"), [((3, 4), (3, 4)), ((3, 4), (3, 1)), ((3, 1), (3, 4)), ((3, 1, 4), (3, 2, 1)), ((3,), (3,))]
    )
    @pytest.mark.parametrize("call", [torch.div, over])
    def test_operands_broadcast(self, of_a, of_b, call):
        a, a0 = draw(*of_a), draw(*of_a, seed=1)
        b, b0 = draw(*of_b, seed=2).abs() + 0.5, draw(*of_b, seed=3).abs() + 0.5
        found = attribute(lambda a, b: call(a, b).reshape(3, -1).sum(1), (a, b), (a0, b0), rules="complete")
        assert found.contributions[0].shape == a.shape
        assert found.convergence_delta.abs().max() < 1e-12

    @pytest.mark.parametrize(
        "call",
        [
            lambda x: (x.sum() / x.prod()).reshape(1),
            lambda x: (torch.tensor([1, 2, 3]) / x).sum(1),
            lambda x: (x / torch.tensor(3)).sum(1),
            lambda x: (x.float() / x.exp()).sum(1),
            lambda x: (x.double() * torch.rsqrt(x.float())).sum(1),
        ],
    )
    def test_scalars_integers_and_two_dtypes(self, call):
        x, x0 = draw(1, 3).abs() + 1, draw(1, 3, seed=1).abs() + 1
        found = attribute(call, x, x0, rules="complete")
        assert found.convergence_delta.abs().max() < 1e-6
        torch.testing.assert_close(found.output, call(x))

    @pytest.mark.parametrize("exponent", [torch.tensor([-0.5, -1.0, -2.0]), torch.tensor([2.0, 0.5, -1.0])])
    def test_powers_of_a_tensor_of_exponents(self, exponent):
        x, x0 = draw(4, 3).abs() + 0.5, draw(4, 3, seed=1).abs() + 0.5
        found = attribute(lambda x: (x.flip(1) * x**exponent).sum(1), x, x0, rules="complete")
        assert found.convergence_delta.abs().max() < 1e-9

    def test_a_number_to_the_power_of_the_input(self):
        found = attribute(lambda x: torch.pow(2.0, x).sum(1), draw(4, 3), rules="complete")
        assert found.convergence_delta.abs().max() < 1e-9


def test_only_inverses_are_marked():
    x = draw(2, 3).abs().add(1).requires_grad_()
    assert not is_inverse(x)
    assert not is_inverse(x.detach())
    assert not is_inverse(torch.rsqrt(x))  # made by no rule


def test_rounding_quotients_of_two_moved_tensors_are_named():
    x, x0 = draw(4, 3), torch.zeros(4, 3, dtype=torch.float64)

    def call(x):
        return (torch.div(x.exp(), x.square() + 1, rounding_mode="floor") + x).sum(1)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        report = attribute(call, x, x0, rules="complete").report
    worst = next(iter(report))
    assert (worst.operation, worst.rule, worst.share) == ("div", "quadrature", pytest.approx(1))
