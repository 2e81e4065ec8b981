"""Digests of what a cohort's numbers depend on."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from cohort_cases import cohort

from deeplift_fast.cohort.hashing import digest, of_processors, of_weights

DIFFERENT = [
    None, 0, 1, -1, 1.0, "1", b"1", True, "", [], {}, [1], [[1]], [1, 2], [2, 1], (None,), {"a": 1}, {"a": 2}, {"b": 1},
    {"a": "1"}, {"a": [1]}, {1: 1}, {1, 2}, torch.tensor(1), torch.tensor([1]), torch.tensor([[1]]),
    torch.tensor([1.0]),
    torch.tensor(2), torch.tensor([1], dtype=torch.int32), torch.empty(0), torch.empty(0, 2), torch.tensor([True]),
    torch.tensor([1.0], dtype=torch.bfloat16), torch.tensor(2**60), torch.tensor(2**60 + 1), ["ab", "c"], ["a", "bc"],
]  # fmt: skip


def test_different_things_have_different_digests():
    assert len({digest(thing) for thing in DIFFERENT}) == len(DIFFERENT)


def test_the_order_of_keys_and_the_layout_of_tensors_do_not_matter():
    assert digest({"a": 1, "b": [2]}) == digest({"b": [2], "a": 1})
    assert digest({3: "x", 4: "y"}) == digest({4: "y", 3: "x"})
    assert digest({"b", "a", "c"}) == digest({"c", "a", "b"})
    matrix = torch.arange(6.0).reshape(2, 3)
    assert digest(matrix.T) == digest(matrix.T.contiguous())
    assert digest(np.arange(3)) == digest(torch.arange(3))


def test_digests_are_the_same_in_every_process():
    code = "from deeplift_fast.cohort.hashing import digest; print(digest({'b': {'x', 'y'}, 'a': [1.5, None]}))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert found == digest({"a": [1.5, None], "b": {"x", "y"}}) + "\n"  # though texts hash differently there


@pytest.mark.parametrize("key", ["a", "b"])
def test_weights_and_vocabularies_count(key):
    data, model = cohort("MLP")
    before = of_weights(model), of_processors(data.input_processors)
    assert before == (of_weights(cohort("MLP")[1]), of_processors(cohort("MLP")[0].input_processors))
    with torch.no_grad():
        weight = model.embedding_model.embedding_layers[key].weight
        weight[2, 0] = torch.nextafter(weight[2, 0], weight[2, 0] + 1)
    data.input_processors[key].code_vocab["new"] = 99
    assert of_weights(model) != before[0]
    assert of_processors(data.input_processors) != before[1]
