"""A recipe for `deeplift-fast run`: a StageNet that PyHealth trained on MIMIC-IV, with its saved processors.

PyHealth's example scripts write a checkpoint of the Trainer (`best.ckpt`, a state dict), and processors by
`save_processors`. Name both and the data:

    MIMIC_ROOT=…/mimic-iv-3.1 CHECKPOINT=…/best.ckpt PROCESSORS=…/processors \\
        deeplift-fast run examples/cohort_recipe.py:build --out mortality

Run as a script, it first makes a small hospital, a checkpoint and processors in `cohort-example`, then attributes them.
`build` uses these for each variable that is not set.
"""

import os
from pathlib import Path
from typing import Any

import torch
from pyhealth.datasets import MIMIC4Dataset, load_processors, save_processors
from pyhealth.models import StageNet
from pyhealth.trainer import Trainer

from deeplift_fast.tasks import MortalityWithStaysMIMIC4

EXAMPLE = Path("cohort-example")
SIZES = {"embedding_dim": 32, "chunk_size": 16, "levels": 3}  # sizes of the checkpoint's model


def place(name: str, default: str) -> Path:
    """The path in an environment variable, or a path in the example's folder."""
    return Path(os.environ.get(name) or EXAMPLE / default).resolve()


def samples(**processors: Any) -> Any:
    """The samples of PyHealth's task, with the day and stay of each step.

    PyHealth caches them on disk, so a second run starts at once.
    """
    dataset = MIMIC4Dataset(
        ehr_root=str(place("MIMIC_ROOT", "hospital")),
        ehr_tables=["diagnoses_icd", "procedures_icd", "labevents"],
        cache_dir=str(place("PYHEALTH_CACHE", "cache")),
    )
    return dataset.set_task(MortalityWithStaysMIMIC4(), **processors)


def build() -> tuple[Any, Any, dict[str, Any]]:
    """The model, the dataset, and further arguments: names of the laboratory values, and the baseline."""
    # Processors are pickles: load only your own.
    inputs, outputs = load_processors(str(place("PROCESSORS", "processors")))
    dataset = samples(input_processors=inputs, output_processors=outputs)
    model = StageNet(dataset, **SIZES)
    weights = torch.load(place("CHECKPOINT", "best.ckpt"), map_location="cpu", weights_only=True)
    model.load_state_dict(weights)
    names = {"labs": MortalityWithStaysMIMIC4.LAB_CATEGORY_NAMES}
    # The baseline removes codes and puts laboratory values at their medians; --baseline chooses another one.
    return model, dataset, {"dimensions": names, "baseline": "typical"}


def prepare() -> None:
    """Makes the files of PyHealth's scripts, for a synthetic hospital and a briefly trained model."""
    from pyhealth.datasets import get_dataloader

    from deeplift_fast.demo.hospital import write_hospital

    write_hospital(EXAMPLE / "hospital", patients=30)
    dataset = samples()
    save_processors(dataset, str(EXAMPLE / "processors"))
    trainer = Trainer(StageNet(dataset, **SIZES), device="cpu", enable_logging=False)
    trainer.train(get_dataloader(dataset, batch_size=8, shuffle=True), epochs=1)
    trainer.save_ckpt(str(EXAMPLE / "best.ckpt"))


def main() -> None:
    """Prepares the example and attributes it."""
    from deeplift_fast.cli import main as deeplift_fast

    prepare()
    raise SystemExit(deeplift_fast(["run", f"{__file__}:build", "--out", str(EXAMPLE / "attributions-of-all")]))


if __name__ == "__main__":
    main()
