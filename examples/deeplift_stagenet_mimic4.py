"""From MIMIC-IV tables to DeepLIFT contributions: a StageNet for mortality, trained and explained.

    python examples/deeplift_stagenet_mimic4.py …/mimic-iv-3.1

Without a folder, a small synthetic hospital with MIMIC-IV's tables takes its place. The script follows PyHealth's
workflow for interpreters; the lines that name deeplift_fast are the difference.
"""

import sys
from pathlib import Path
from typing import Any

import torch
from pyhealth.datasets import MIMIC4Dataset, get_dataloader, split_by_patient
from pyhealth.models import StageNet
from pyhealth.tasks import MortalityPredictionStageNetMIMIC4
from pyhealth.trainer import Trainer

from deeplift_fast import DeepLift, baselines  # was: from pyhealth.interpret.methods import DeepLift
from deeplift_fast.report.titles import Titles

WORK = Path("deeplift-stagenet-mimic4")
LABS = {"labs": MortalityPredictionStageNetMIMIC4.LAB_CATEGORY_NAMES}


def hospital() -> Path:
    """A small synthetic hospital, made once."""
    from deeplift_fast.demo.hospital import write_hospital

    root = WORK / "hospital"
    if not root.exists():
        write_hospital(root, patients=60)
    return root


def load(root: Path) -> Any:
    """The samples of PyHealth's task, which its cache keeps for the next run."""
    tables = ["diagnoses_icd", "procedures_icd", "labevents"]
    ehr = MIMIC4Dataset(ehr_root=str(root.resolve()), ehr_tables=tables, cache_dir=str((WORK / "cache").resolve()))
    return ehr.set_task(MortalityPredictionStageNetMIMIC4())


def train(dataset: Any, train_part: Any, epochs: int) -> StageNet:
    """A small StageNet, trained by PyHealth."""
    torch.manual_seed(0)
    model = StageNet(dataset, embedding_dim=64, chunk_size=32, levels=3)
    trainer = Trainer(model, device="cuda" if torch.cuda.is_available() else "cpu", enable_logging=False)
    trainer.train(get_dataloader(train_part, batch_size=32, shuffle=True), epochs=epochs)
    return model.eval()


def main() -> None:
    """Trains, then prints the strongest reasons of one patient and the convergence deltas of a batch."""
    root = Path(sys.argv[1]) if len(sys.argv) > 1 else hospital()
    dataset = load(root)
    train_part, _, test_part = split_by_patient(dataset, [0.8, 0.0, 0.2], seed=0)
    model = train(dataset, train_part, epochs=10 if len(sys.argv) > 1 else 1)

    # Codes are compared with their absence, laboratory values with their medians over the training part.
    usual = baselines.typical(train_part, dimensions=LABS)
    deeplift = DeepLift(model, rules="complete", baseline=usual)
    batch = next(iter(get_dataloader(test_part, batch_size=8)))
    batch = {key: _moved(value, model.device) for key, value in batch.items()}
    found = deeplift.explain(**batch)

    rows = found.to_dataframe(dimensions=LABS)
    rows = rows[rows["sample"] == 0].sort_values("attribution")
    titles = Titles(root)
    found_titles = [titles.find(feature, code) for feature, code in zip(rows["feature"], rows["code"], strict=True)]
    rows["title"] = [title.text if title else "" for title in found_titles]
    shown = ["feature", "code", "title", "step", "value", "attribution"]
    print("Raises the risk:", rows[shown].tail(5)[::-1].to_string(index=False), sep="\n")
    print("Lowers the risk:", rows[shown].head(5).to_string(index=False), sep="\n")
    print("logit at the baseline and at the input:", found.baseline_output[0].item(), found.output[0].item())
    print("largest convergence delta of the batch:", found.convergence_delta.abs().max().item())


def _moved(value: Any, device: torch.device) -> Any:
    """A value of the batch on the model's device."""
    if isinstance(value, torch.Tensor):
        return value.to(device)
    return type(value)(_moved(each, device) for each in value) if isinstance(value, tuple | list) else value


if __name__ == "__main__":
    main()
