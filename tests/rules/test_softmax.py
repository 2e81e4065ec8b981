"""What the softmax rules keep of softmax itself: dtypes, under autocast too."""

import pytest
import torch

from deeplift_fast.rules.softmax import LogSoftmaxRule, SoftmaxRule

RULES = {torch.softmax: SoftmaxRule, torch.log_softmax: LogSoftmaxRule}


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("function", RULES)
def test_dtypes_are_those_of_the_function(function, dtype, autocast):
    z = torch.linspace(-2, 3, 12).reshape(3, 4).to(dtype).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        expected, found = function(z, 1), RULES[function].apply(z, z.detach() - 1, 1)
    assert found.dtype == expected.dtype
    torch.testing.assert_close(found, expected)
    found.sum().backward()
    assert z.grad.dtype == dtype
