"""Draws `docs/timeline.svg`: a patient of the synthetic hospital over time.

python benchmarks/timeline_picture.py

A hospital is made, a StageNet is trained and every sample is attributed, as by `deeplift-fast demo`: two minutes. The
same machine and packages give the same bytes.
"""

import contextlib
import os
import tempfile
from pathlib import Path

import matplotlib

matplotlib.use("svg")

import matplotlib.pyplot as plt
import pandas as pd

from deeplift_fast import plot
from deeplift_fast.demo.job import DemoOptions, run
from deeplift_fast.report.titles import Titles

SVG = Path(__file__).parent.parent / "docs" / "timeline.svg"
STAYS = 4


def chosen(out: Path) -> int:
    """The held-out sample with the highest risk, of those with `STAYS` stays or more."""
    samples = pd.read_parquet(out / "samples", columns=["sample", "split", "stays", "probability"])
    samples = samples[(samples["split"] == "test") & (samples["stays"].map(len) >= STAYS)]
    return int(samples.sort_values(["probability", "sample"])["sample"].iloc[-1])


def draw(out: Path, path: Path) -> None:
    """Draws the patient of a demo's folder.

    Args:
        out: the folder.
        path: the picture, SVG.
    """
    own = {"svg.hashsalt": "timeline", "svg.fonttype": "path", "savefig.facecolor": "white"}
    with plt.rc_context(own):
        ax = plot.timeline(out, sample=chosen(out), titles=Titles(out / "hospital"), top=12, width=7)
        ax.figure.savefig(path, metadata={"Date": None})
        plt.close(ax.figure)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "demo"
        with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
            run(DemoOptions(out))
        draw(out, SVG)
    print(SVG)


if __name__ == "__main__":
    main()
