"""How faithful attributions are, measured: `"rescale"`, `"complete"` and PyHealth's methods on trained models.

    python benchmarks/faithfulness.py [--seeds 0 1 2] [--patients 1000] [--out benchmarks/results/faithfulness.json]
    python benchmarks/faithfulness.py --show RESULTS.json …

Data: the demo's synthetic hospital, whose risk codes and labs are known, and the Wisconsin breast cancer data (real,
569 biopsies of 30 numbers) that scikit-learn ships. Per model and method: PyHealth's comprehensiveness (higher is
better) and sufficiency (lower is better) on the riskiest quarter of the held-out patients, the AUROC with which mean
attributions tell planted risk codes and planted labs from the others, and the seconds that attribution took.
"""

import argparse
import contextlib
import json
import logging
import statistics
import tempfile
import time
import warnings
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pyhealth.datasets import create_sample_dataset
from pyhealth.datasets.utils import collate_fn_dict_with_padding
from pyhealth.interpret.api import Interpretable
from pyhealth.interpret.methods import GIM, IntegratedGradients
from pyhealth.interpret.methods import DeepLift as PyHealthDeepLift
from pyhealth.metrics.interpretability import Evaluator
from pyhealth.metrics.interpretability.utils import threshold_sample_filter
from pyhealth.models import MLP, RNN, StageAttentionNet, StageNet, Transformer
from sklearn.datasets import load_breast_cancer
from sklearn.metrics import roc_auc_score
from torch.utils.data import DataLoader

from deeplift_fast import DeepLift
from deeplift_fast.demo.hospital import write_hospital
from deeplift_fast.demo.planted import PLANTED
from deeplift_fast.demo.samples import load_samples
from deeplift_fast.features import default_baseline, read_features

STAGES, FLAT = {"codes": "stagenet", "labs": "stagenet_tensor"}, {"codes": "sequence", "labs": "tensor"}
FEWEST = 5  # a code met less often has no mean worth ranking


class InterpretableRNN(RNN, Interpretable):
    """PyHealth's RNN with the entry that PyHealth's interpreters ask for."""

    def get_embedding_model(self):
        return self.embedding_model

    def forward(self, **kwargs):
        given = kwargs[self.feature_keys[0]]
        size = len(given[-1] if isinstance(given, tuple) else given)
        return super().forward(**{"label": torch.zeros(size, 1), **kwargs})  # its loss asks for labels

    def forward_from_embedding(self, **kwargs):
        states = []
        for key in self.feature_keys:
            x = kwargs[key][0] if isinstance(kwargs[key], tuple) else kwargs[key]
            mask = (x.abs().sum(-1) != 0).int() if x.dim() == 3 else None
            states.append(self.rnn[key](x if x.dim() == 3 else x.unsqueeze(1), mask)[1])
        logits = self.fc(torch.cat(states, dim=1))
        return {"logit": logits, "y_prob": self.prepare_y_prob(logits)}


MODELS = {
    "StageNet": (lambda d: StageNet(d, embedding_dim=64, chunk_size=32, levels=3), "stages"),
    "StageAttentionNet": (lambda d: StageAttentionNet(d, embedding_dim=64, chunk_size=16, levels=3), "stages"),
    "Transformer, 1 layer": (lambda d: Transformer(d, embedding_dim=64, num_layers=1), "stages"),
    "Transformer, 2 layers": (lambda d: Transformer(d, embedding_dim=64, num_layers=2), "stages"),
    "MLP": (lambda d: MLP(d, embedding_dim=64, hidden_dim=64, n_layers=2), "flat"),
    "RNN": (lambda d: InterpretableRNN(d, embedding_dim=64, hidden_dim=64), "flat"),
}


class SameBaseline:
    """PyHealth's integrated gradients from the baseline that deeplift_fast takes: padding stays padding."""

    def __init__(self, model):
        self.model, self.method = model, IntegratedGradients(model, steps=50)

    def attribute(self, **batch):
        features = read_features(self.model, batch, True)
        return self.method.attribute(baseline={k: default_baseline(f, False) for k, f in features.items()}, **batch)


METHODS = {
    "rescale": lambda m: DeepLift(m),
    "complete": lambda m: DeepLift(m, rules="complete"),
    "complete, 4 steps": lambda m: DeepLift(m, rules="complete", steps=4),
    "PyHealth DeepLift": PyHealthDeepLift,
    "PyHealth IG, 50 steps": lambda m: IntegratedGradients(m, steps=50),
    "PyHealth IG, 50 steps, our baseline": SameBaseline,
    "PyHealth GIM": GIM,
}


@dataclass(frozen=True)
class Data:
    """Samples with one schema, and which rows are trained on and held out."""

    dataset: Any
    train: list[int]
    test: list[int]

    def loader(self, rows, batch_size, shuffle=False):
        """Batches of patients with about as many steps: PyHealth's models read into the padding of longer ones."""
        items = sorted((self.dataset[row] for row in rows), key=lambda item: self._steps(item["labs"]))
        batches = [list(range(i, min(i + batch_size, len(items)))) for i in range(0, len(items), batch_size)]
        order = torch.randperm(len(batches)).tolist() if shuffle else range(len(batches))
        return DataLoader(items, batch_sampler=[batches[i] for i in order], collate_fn=collate_fn_dict_with_padding)

    @staticmethod
    def _steps(labs):
        return len(labs[1]) if isinstance(labs, tuple | list) else 1


def hospital(patients, seed):
    """The demo's hospital as visits and lab steps, and as one sequence of codes with mean lab levels."""
    with tempfile.TemporaryDirectory() as folder:
        write_hospital(Path(folder) / "mimic", patients=patients, seed=seed)
        samples = load_samples(Path(folder) / "mimic", Path(folder) / "cache", seed)
        names = {index: code for code, index in samples.train.input_processors["icd_codes"].code_vocab.items()}
        parts = [[_plain(part[i], names) for i in range(len(part))] for part in samples.parts()]
    rows = [row for part in parts for row in part]
    held_out = min(len(parts[-1]), 128)
    stages = [{**row, "codes": row["stages"], "labs": row["steps"]} for row in rows]
    flat = [{**row, "codes": row["all"], "labs": row["means"]} for row in rows]
    return _both(stages, flat, held_out)


def _plain(sample, names):
    (times, visits), (lab_times, labs) = sample["icd_codes"], sample["labs"]
    codes = [[names[int(c)] for c in visit if int(c)] for visit in visits]
    kept = [(float(t), visit) for t, visit in zip(times, codes, strict=True) if visit]
    return {
        "patient_id": sample["patient_id"],
        "stages": ([t for t, _ in kept], [visit for _, visit in kept]),
        "steps": (lab_times.tolist(), labs.tolist()),
        "all": [code for visit in codes for code in visit],
        "means": labs.mean(0).tolist(),
        "label": int(sample["mortality"]),
    }


def biopsies(seed):
    """The breast cancer data, standardised; thirty numbers per patient."""
    found = load_breast_cancer()
    x = torch.tensor(found.data)
    x = (x - x.mean(0)) / x.std(0)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed)).tolist()
    rows = [{"patient_id": str(i), "values": x[i].tolist(), "label": int(found.target[i])} for i in order]
    stages = [{**row, "labs": (None, [row["values"]])} for row in rows]
    flat = [{**row, "labs": row["values"]} for row in rows]
    return _both(stages, flat, len(rows) // 4)


def _both(stages, flat, held_out):
    made = {}
    for kind, rows, schema in (("stages", stages, STAGES), ("flat", flat, FLAT)):
        keys = [key for key in schema if key in rows[0]]
        kept = [{key: row[key] for key in ("patient_id", "label", *keys)} for row in rows]
        with contextlib.redirect_stdout(None):
            dataset = create_sample_dataset(
                kept, {key: schema[key] for key in keys}, {"label": "binary"}, in_memory=True
            )
        cut = len(kept) - held_out
        made[kind] = Data(dataset, list(range(cut)), list(range(cut, len(kept))))
    return made


def trained(make, data, seed, epochs=15):
    """A model with the weights of its best epoch on a tenth of the training rows."""
    torch.manual_seed(seed)
    model = make(data.dataset)
    for layer in model.embedding_model.embedding_layers.values():
        if isinstance(layer, torch.nn.Embedding):
            layer.weight.data.mul_(0.1)  # what a code has learnt would be small beside the noise it was drawn as
    cut = len(data.train) * 9 // 10
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3, weight_decay=1e-3)
    best, kept, waited = float("inf"), None, 0
    for _ in range(epochs):
        model.train()
        for batch in data.loader(data.train[:cut], 64, shuffle=True):
            optimizer.zero_grad()
            model(**batch)["loss"].backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
        model.eval()
        with torch.no_grad():
            loss = statistics.mean(float(model(**b)["loss"]) for b in data.loader(data.train[cut:], 64))
        waited += 1
        if loss < best:
            best, waited, kept = loss, 0, {k: v.clone() for k, v in model.state_dict().items()}
        if waited == 3:
            break
    model.load_state_dict(kept)
    return model.eval()


def auroc(model, data):
    with torch.no_grad():
        pairs = [(model(**b)["y_prob"].flatten(), b["label"].flatten()) for b in data.loader(data.test, 64)]
    return roc_auc_score(torch.cat([y for _, y in pairs]), torch.cat([p for p, _ in pairs]))


class Kept:
    """A method that keeps its time and its attributions."""

    def __init__(self, method):
        self.method, self.seconds, self.found = method, 0.0, []

    def attribute(self, **batch):
        start = time.perf_counter()
        found = self.method.attribute(**batch)
        self.seconds += time.perf_counter() - start
        self.found.append((batch, {key: value.detach() for key, value in found.items()}))
        return found


def planted_aurocs(kept, data):
    """How well mean attributions find the planted risk codes, and mean absolute ones the planted labs."""
    names = {i: code for code, i in data.dataset.input_processors["codes"].code_vocab.items()}
    codes, labs = defaultdict(list), []
    for batch, found in kept.found:
        tokens = batch["codes"][-1] if isinstance(batch["codes"], tuple) else batch["codes"]
        for index, value in zip(tokens.flatten().tolist(), found["codes"].flatten().tolist(), strict=True):
            if index > 1:
                codes[names[index]].append(value)
        labs.append(found["labs"].abs().flatten(1, -2).sum(1) if found["labs"].dim() > 2 else found["labs"].abs())
    ranked = {c: statistics.mean(v) for c, v in codes.items() if len(v) >= FEWEST and PLANTED.weight(c) >= 0}
    by_code = roc_auc_score([PLANTED.weight(c) > 0 for c in ranked], list(ranked.values()))
    from pyhealth.tasks import MortalityPredictionStageNetMIMIC4

    categories = list(MortalityPredictionStageNetMIMIC4.LAB_CATEGORY_NAMES)
    mean = torch.cat(labs).mean(0).tolist()
    return by_code, roc_auc_score([name in PLANTED.labs for name in categories], mean)


def riskiest(model, data):
    """PyHealth's filter for the quarter of held-out patients with the highest predicted risk."""
    with torch.no_grad():
        risk = torch.cat([model(**b)["y_prob"].flatten() for b in data.loader(data.test, 64)])
    return threshold_sample_filter(float(risk.quantile(0.75)))


def measure(name, model, data, has_planted, batch_size=32):
    with contextlib.redirect_stdout(None), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        kept = Kept(METHODS[name](model))
        found = Evaluator(model, sample_filter=riskiest(model, data)).evaluate_attribution(
            data.loader(data.test, batch_size), kept
        )
        found["seconds"] = kept.seconds
        if has_planted:
            found["codes"], found["labs"] = planted_aurocs(kept, data)
    return found


def run(seeds, patients):
    """Rows: data, model, seed, method and what was measured."""
    rows = []
    for seed in seeds:
        for title, sets in (("hospital", hospital(patients, seed)), ("biopsies", biopsies(seed))):
            for model_name, (make, kind) in MODELS.items():
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    model = trained(make, sets[kind], seed)
                    score = auroc(model, sets[kind])
                for method in METHODS:
                    measured = measure(method, model, sets[kind], title == "hospital")
                    rows.append(
                        {"data": title, "model": model_name, "seed": seed, "method": method, "auroc": score, **measured}
                    )
                    print(json.dumps(rows[-1]), flush=True)
    return rows


def table(rows):
    """Means over seeds, as Markdown."""
    groups = defaultdict(list)
    for row in rows:
        groups[row["data"], row["model"], row["method"]].append(row)
    lines, last = [], None
    for (data, model, method), group in groups.items():
        if (data, model) != last:
            score = statistics.mean(row["auroc"] for row in group)
            lines += ["", f"**{model}, {data}** (AUROC {score:.3f})", ""]
            lines += [
                "| method | comprehensiveness | sufficiency | codes | labs | seconds |",
                "|---|---|---|---|---|---|",
            ]
            last = data, model
        mean = {key: statistics.mean(row[key] for row in group) for key in group[0] if isinstance(group[0][key], float)}
        shown = [
            f"{mean[key]:.3f}" if key in mean else "" for key in ("comprehensiveness", "sufficiency", "codes", "labs")
        ]
        lines.append(f"| {method} | {' | '.join(shown)} | {mean['seconds']:.2f} |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--patients", type=int, default=1000)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/faithfulness.json"))
    parser.add_argument("--show", type=Path, nargs="+", help="tables of earlier results, and nothing else")
    options = parser.parse_args()
    if options.show:
        print(table([row for path in options.show for row in json.loads(path.read_text())]))
        return
    logging.getLogger("pyhealth").setLevel(logging.WARNING)
    torch.set_num_threads(1)  # small matrices: a second thread gains nothing
    rows = run(options.seeds, options.patients)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(rows, indent=1))
    print(table(rows))


if __name__ == "__main__":  # PyHealth starts processes
    main()
