"""The part of the result that later commands go on from: weights, PyHealth's processors, and a recipe."""

from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Any

import torch

from deeplift_fast.demo.samples import Samples, quiet_pyhealth

if TYPE_CHECKING:
    from deeplift_fast.demo.job import DemoOptions
    from deeplift_fast.demo.model import Settings

CHECKPOINT, PROCESSORS, RECIPE = "best.ckpt", "processors", "recipe.py"

_RECIPE = Template('''\
"""The demo's model, samples and baseline, for commands that go on from them:

    deeplift-fast run recipe.py:build --rules $rules --out DIR

This folder may be moved. PyHealth's cache is written to `cache` in it; the cache holds patient data and may be removed.
Processors are pickles, and a pickle runs its own code when it is loaded: load only your own.
"""

from pathlib import Path

import torch
from pyhealth.models import StageNet

from deeplift_fast import baselines
from deeplift_fast.demo.samples import load_samples
from deeplift_fast.tasks import MortalityWithStaysMIMIC4

HERE = Path(__file__).resolve().parent
TABLES = $tables  # the folder of hosp and icu
SEED = $seed
DIMENSIONS = {"labs": MortalityWithStaysMIMIC4.LAB_CATEGORY_NAMES}


def build():
    """The model, the dataset, and further arguments of `attribute_cohort`."""
    samples = load_samples(TABLES, HERE / "cache", SEED, HERE / "$processors")
    model = StageNet(samples.everything, $sizes)
    model.load_state_dict(torch.load(HERE / "$checkpoint", map_location="cpu", weights_only=True))
    baseline = $baseline
    return model.eval(), samples.everything, {"dimensions": DIMENSIONS, "baseline": baseline, "splits": samples.splits}
''')


def keep(folder: Path, model: Any, samples: Samples, settings: "Settings", options: "DemoOptions") -> None:
    """Writes `best.ckpt`, `processors` and `recipe.py`.

    Args:
        folder: folder of the result.
        model: the trained StageNet.
        samples: its samples.
        settings: its sizes.
        options: the options of the job.
    """
    from pyhealth.datasets import save_processors

    torch.save(model.state_dict(), folder / CHECKPOINT)
    with quiet_pyhealth():
        save_processors(samples.everything, str(folder / PROCESSORS))
    root, name = options.mimic_root, options.baseline_name
    text = _RECIPE.substitute(
        rules=options.rules,
        tables='HERE / "hospital"' if root is None else f"Path({str(root.resolve())!r})",
        seed=options.seed,
        processors=PROCESSORS,
        checkpoint=CHECKPOINT,
        sizes=", ".join(f"{size}={number}" for size, number in settings.sizes.items()),
        baseline="baselines.typical(samples.train, seed=SEED, dimensions=DIMENSIONS)"
        if name == "typical"
        else repr(name),
    )
    (folder / RECIPE).write_text(text, encoding="utf-8")
