"""Measures `DeepLift.interactions` against four-way differences of outputs, on a hospital with planted pairs.

    python benchmarks/interactions.py                # the study: 2 models, 2 weights, 3 seeds, 30 minutes of one core
    python benchmarks/interactions.py --table        # the table of results/interactions.json

For the eight strongest codes of each held-out patient, each way of asking is compared with the four-way difference
`f(x) − f(x without i) − f(x without j) + f(x without both)` of the model itself. A model is trained until this
difference tells planted pairs from others with AUROC 0.9 or more, or for `MOST` epochs. The weight of a planted pair
decides how fast a model learns it.
`interactions_hospital.py` has the patients and models.
"""

import argparse
import itertools
import json
import logging
import statistics
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import interactions_hospital
import model_results
import numpy as np
import torch
from faithfulness_hospital import MODELS, Batch, Hospital, held_out_auroc
from interactions_hospital import WEIGHT, hospital, is_pair, trained
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score

from deeplift_fast import DeepLift, Interactions

RESULTS = Path(__file__).parent / "results" / "interactions.json"
NAMES = ("Transformer", "StageNet")
WEIGHTS = (WEIGHT, 10.0)
SEEDS = (1, 2, 3)
TOP = 8
MOST, ENOUGH = 40, 0.9
EXACT = "four-way difference"
WAYS = {  # the rule set and the steps
    "complete, 1 step": ("complete", 1),
    "complete, 2 steps": ("complete", 2),
    "complete, 4 steps": ("complete", 4),
    "complete, 8 steps": ("complete", 8),
    "rescale": ("rescale", 1),
}
ROUNDS = 9  # of timing

Row = dict[str, Any]


def main(arguments: Sequence[str] | None = None) -> None:
    options = _options(arguments)
    if not options.table:
        logging.getLogger("pyhealth").setLevel(logging.WARNING)
        torch.set_num_threads(1)
        results: dict[str, Any] = {"machine": model_results.machine(threads=1), "models": {}, "cost": {}}
        for name in options.models:
            results["cost"][name] = cost(name)
            by_weight = results["models"].setdefault(name, {})
            for weight, seed in itertools.product(options.weights, options.seeds):
                by_weight.setdefault(f"{weight:g}", {})[str(seed)] = measured(name, seed, weight, options.most)
                options.out.write_text(json.dumps(results, indent=1) + "\n")
    if not options.out.is_file():
        raise SystemExit(f"--out is {options.out}, which is missing; run the study first, without --table")
    print(table(json.loads(options.out.read_text())))


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS), help="seeds of the hospital (1 2 3)")
    parser.add_argument("--weights", type=float, nargs="+", default=list(WEIGHTS), help="of a planted pair (6 10)")
    parser.add_argument("--models", nargs="+", choices=NAMES, default=list(NAMES), metavar="MODEL")
    parser.add_argument("--most", type=int, default=MOST, help=f"most epochs of training ({MOST})")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--table", action="store_true", help="only print the table of --out")
    return parser.parse_args(arguments)


def measured(
    name: str, seed: int, weight: float = WEIGHT, most: int = MOST, train: int = interactions_hospital.TRAIN
) -> Row:
    """Trains and measures one model, seed and weight.

    Args:
        name: one of `NAMES`.
        seed: seed of the patients and the model.
        weight: what a planted pair adds to the score of the label.
        most: the most epochs of training.
        train: the number of patients to train on.

    Returns:
        The epochs, the model's AUROC, the numbers of pairs, and for each way the AUROC of planted pairs and Spearman's
        correlation with the four-way difference, the mean over patients.
    """
    data, looks = hospital(seed, weight, train), []

    def enough(model: Any, epochs: int) -> bool:
        looks.append((epochs, planted_auroc(asked(model, data, exact=True))))
        print(f"{name} {weight:g} {seed}: {epochs} epochs, AUROC of the {EXACT}: {looks[-1][1]:.3f}", flush=True)
        return looks[-1][1] >= ENOUGH or epochs >= most

    model = trained(name, data, seed, enough)
    truth = asked(model, data, exact=True)
    labels = [label for found in truth for label in planted(found)]
    ways = {EXACT: {"auroc": planted_auroc(truth)}}
    for way, (rules, steps) in WAYS.items():
        found = asked(model, data, rules=rules, steps=steps, players=[each.players for each in truth])
        ways[way] = {"auroc": planted_auroc(found), "spearman": spearman(found, truth)}
    return {
        "epochs": looks[-1][0],
        "model_auroc": held_out_auroc(model, data),
        "pairs": len(labels),
        "planted": sum(labels),
        "ways": ways,
    }


def asked(
    model: Any,
    data: Hospital,
    rules: str = "complete",
    steps: int = 1,
    exact: bool = False,
    players: Sequence[Any] | None = None,
) -> list[Interactions]:
    """The interactions of each batch of held-out patients, against the absence of the codes."""
    deeplift = DeepLift(model, rules=rules, steps=steps, baseline="removed")
    found = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of rescaling, and of times that StageNet misses
        for place, batch in enumerate(data.held_out_batches()):
            named = None if players is None else players[place]
            found.append(deeplift.interactions(top=TOP, players=named, exact=exact, **without_labels(batch)))
    return found


def without_labels(batch: Batch) -> Batch:
    return {key: value for key, value in batch.items() if key != "label"}


def pairs(found: Interactions, sample: int) -> np.ndarray:
    """The interactions of a patient's pairs."""
    count = len(found.players[sample])
    first, second = np.triu_indices(count, 1)
    return found.values[sample].double().numpy()[first, second]


def planted(found: Interactions) -> list[bool]:
    """Whether each pair of each patient is planted, in the order of :func:`pairs`."""
    labels = []
    for players in found.players:
        first, second = np.triu_indices(len(players), 1)
        labels += [is_pair(players[i].code, players[j].code) for i, j in zip(first, second, strict=True)]
    return labels


def planted_auroc(batches: Sequence[Interactions]) -> float:
    """AUROC of the planted pairs among all pairs of all patients, by signed interaction."""
    labels = [label for found in batches for label in planted(found)]
    values = [pairs(found, sample) for found in batches for sample in range(len(found.players))]
    return float(roc_auc_score(labels, np.concatenate(values)))


def spearman(batches: Sequence[Interactions], truth: Sequence[Interactions]) -> float:
    """Spearman's correlation over each patient's pairs; mean over patients with three pairs or more."""
    each = [
        spearmanr(pairs(found, sample), pairs(true, sample))[0]
        for found, true in zip(batches, truth, strict=True)
        for sample, players in enumerate(true.players)
        if len(players) > 2
    ]
    return float(np.mean(each))


def cost(name: str) -> Row:
    """Process time of a call on 50 patients, in attributions of them; the calls take turns on an untrained model."""
    data = hospital(SEEDS[0], train=0)
    deeplift = DeepLift(MODELS[name].make(data.dataset).eval(), rules="complete")
    batch = without_labels(data.held_out_batches()[0])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        players = deeplift.interactions(top=TOP, **batch).players
        calls = {
            "attribution": lambda: deeplift.attribute(**batch),
            "interactions": lambda: deeplift.interactions(top=TOP, **batch),
            EXACT: lambda: deeplift.interactions(players=players, exact=True, **batch),
        }
        seconds: dict[str, list[float]] = {call: [] for call in calls}
        for _ in range(ROUNDS):
            for call, run in calls.items():
                start = time.process_time()
                run()
                seconds[call].append(time.process_time() - start)
    medians = {call: statistics.median(each) for call, each in seconds.items()}
    return {
        "attribution_ms": 1000 * medians["attribution"],
        "interactions": medians["interactions"] / medians["attribution"],
        EXACT: medians[EXACT] / medians["attribution"],
        "records_per_patient": sum(1 + len(each) for each in players) / len(players),
    }


def table(results: dict[str, Any]) -> str:
    """The results as Markdown: the mean over seeds, then every seed."""
    found = [(name, weight, each) for name, by in results["models"].items() for weight, each in by.items()]
    lines = ["| model | weight | asked by | Spearman (seeds) | planted pairs, AUROC (seeds) |", "|---|---|---|---|---|"]
    for name, weight, by_seed in found:
        for way in (EXACT, *WAYS):
            rows = [each["ways"][way] for each in by_seed.values()]
            near = _shown([row["spearman"] for row in rows]) if way != EXACT else ""
            lines.append(f"| {name} | {weight} | {way} | {near} | {_shown([row['auroc'] for row in rows])} |")
    lines += ["", "| model | weight | seed | epochs | AUROC of its predictions | pairs | planted |"]
    lines.append("|---|---|---|---|---|---|---|")
    for name, weight, by_seed in found:
        for seed, each in by_seed.items():
            counts = f"{each['pairs']:,} | {each['planted']}"
            lines.append(f"| {name} | {weight} | {seed} | {each['epochs']} | {each['model_auroc']:.3f} | {counts} |")
    lines += ["", f"| model | attribution, ms | `top={TOP}`, attributions | `exact=True`, attributions |"]
    lines.append("|---|---|---|---|")
    for name, spent in results["cost"].items():
        times = f"{spent['attribution_ms']:.1f} | {spent['interactions']:.1f} | {spent[EXACT]:.1f}"
        lines.append(f"| {name} | {times} |")
    return "\n".join(lines)


def _shown(values: Sequence[float]) -> str:
    return f"{statistics.mean(values):.2f} ({', '.join(f'{value:.2f}' for value in values)})"


if __name__ == "__main__":
    main()
