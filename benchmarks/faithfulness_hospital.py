"""The planted hospital of the faithfulness study: patients with codes only, and the models trained on them."""

import contextlib
import copy
import math
import random
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from pyhealth.datasets import create_sample_dataset
from pyhealth.datasets.utils import collate_fn_dict_with_padding
from pyhealth.interpret.api import Interpretable
from pyhealth.models import MLP, RNN, StageAttentionNet, StageNet, Transformer
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn
from torch.utils.data import DataLoader

KEY = "codes"
TRAIN, HELD_OUT = 1500, 200
BATCH = 64  # for training
HELD_OUT_BATCH = 50
LEARNING_RATE = 3e-3
RISK, PROTECTIVE = (frozenset(f"{kind}{code}" for code in range(8)) for kind in "rs")
WEIGHT = 1.5  # a risk code adds it to the score, a protective code subtracts it

Batch = dict[str, Any]


def patients(seed: int, count: int) -> list[dict[str, Any]]:
    """Samples with `codes`, a list of visits, and a `label`; a larger `count` only adds samples at the end."""
    draw = random.Random(seed)
    return [{"patient_id": f"p{number}", **_patient(draw)} for number in range(count)]


def _patient(draw: random.Random) -> dict[str, Any]:
    visits, score = [], 0.0
    for _ in range(draw.randint(2, 8)):
        codes = [f"c{int(draw.paretovariate(0.9)) % 200}" for _ in range(draw.randint(3, 8))]
        for kind, weight in (("r", WEIGHT), ("s", -WEIGHT)):
            if draw.random() < 0.25:
                codes.append(f"{kind}{draw.randrange(8)}")
                score += weight
        draw.shuffle(codes)
        visits.append(codes)
    return {KEY: visits, "label": int(draw.random() < 1 / (1 + math.exp(-score)))}


@dataclass(frozen=True)
class Hospital:
    """Processed patients.

    Attributes:
        dataset: all patients, because PyHealth fits its vocabulary on all samples.
        train: the samples to train on.
        held_out: the other samples.
    """

    dataset: Any
    train: Sequence[Batch]
    held_out: Sequence[Batch]

    def held_out_batches(self) -> list[Batch]:
        """Batches of 50 held-out patients, in order."""
        parts = range(0, len(self.held_out), HELD_OUT_BATCH)
        return [collate(self.held_out[start : start + HELD_OUT_BATCH]) for start in parts]

    def indices(self, codes: frozenset[str]) -> Tensor:
        """The token indices of codes."""
        vocabulary = self.dataset.input_processors[KEY].code_vocab
        return torch.tensor(sorted(vocabulary[code] for code in codes if code in vocabulary))


def collate(samples: Sequence[Batch]) -> Batch:
    """A padded batch, as PyHealth's loader yields it."""
    return collate_fn_dict_with_padding(list(samples))


def hospital(seed: int, flat: bool) -> Hospital:
    """1,500 patients to train on and 200 held out, as visits (`nested_sequence`) or, if `flat`, as one `sequence`."""
    rows = patients(seed, TRAIN + HELD_OUT)
    if flat:
        rows = [{**row, KEY: [code for visit in row[KEY] for code in visit]} for row in rows]
    schema = {KEY: "sequence" if flat else "nested_sequence"}
    with contextlib.redirect_stdout(None):
        dataset = create_sample_dataset(rows, schema, {"label": "binary"}, in_memory=True)
    samples = [dataset[row] for row in range(len(rows))]
    return Hospital(dataset, samples[:TRAIN], samples[TRAIN:])


class InterpretableRNN(RNN, Interpretable):
    """PyHealth's RNN with `forward_from_embedding`, which PyHealth's interpreters need."""

    @classmethod
    def of(cls, model: RNN) -> "InterpretableRNN":
        """The same model with the same weights, as this class."""
        found = copy.copy(model)
        found.__class__ = cls
        return found

    def get_embedding_model(self) -> nn.Module:
        return self.embedding_model

    def forward(self, **batch: Any) -> dict[str, Tensor]:
        """PyHealth's forward pass, with labels of 0 if the batch has none."""
        value = batch[KEY][0] if isinstance(batch[KEY], tuple) else batch[KEY]
        return super().forward(**{"label": torch.zeros(len(value), 1), **batch})

    def forward_from_embedding(self, **batch: Any) -> dict[str, Tensor]:
        """From `(embedded codes [batch, visits, codes, width], mask [batch, visits, codes])`."""
        embedded, mask = batch[KEY]
        _, last = self.rnn[KEY](embedded.sum(2), mask.any(-1).int())
        logits = self.fc(last)
        return {"logit": logits, "y_prob": self.prepare_y_prob(logits)}


@dataclass(frozen=True)
class Kind:
    """A kind of model.

    Attributes:
        make: makes the untrained model from a dataset.
        permutations: number of permutations per reference.
        flat: whether a patient is one sequence of codes.
    """

    make: Callable[[Any], Any]
    permutations: int = 128
    flat: bool = False


MODELS = {
    "Transformer": Kind(lambda data: Transformer(data, embedding_dim=32, num_layers=2, dropout=0.1)),
    "StageNet": Kind(lambda data: StageNet(data, embedding_dim=32, chunk_size=16), 64),
    "StageAttentionNet": Kind(lambda data: StageAttentionNet(data, embedding_dim=32, chunk_size=16), 64),
    "RNN": Kind(lambda data: RNN(data, embedding_dim=32, hidden_dim=32)),
    "MLP": Kind(lambda data: MLP(data, embedding_dim=32, hidden_dim=32), flat=True),
}


def trained(kind: Kind, data: Hospital, seed: int, epochs: int) -> Any:
    """A model with PyHealth's initial weights, trained with Adam, in eval mode."""
    torch.manual_seed(seed)
    model = kind.make(data.dataset)
    optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE)
    model.train()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # StageNet warns in every pass about missing times
        for _ in range(epochs):
            for batch in DataLoader(data.train, BATCH, shuffle=True, collate_fn=collate):
                optimizer.zero_grad()
                model(**batch)["loss"].backward()
                optimizer.step()
    return model.eval()


def interpretable(model: Any) -> Any:
    """The model with `forward_from_embedding`, which only the RNN lacks."""
    return InterpretableRNN.of(model) if isinstance(model, RNN) else model


def held_out_auroc(model: Any, data: Hospital) -> float:
    """AUROC of the model on the held-out patients."""
    with torch.no_grad():
        found = [(batch["label"].flatten(), model(**batch)["logit"].flatten()) for batch in data.held_out_batches()]
    labels, logits = (torch.cat(part) for part in zip(*found, strict=True))
    return float(roc_auc_score(labels, logits))
