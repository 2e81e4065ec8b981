"""`deeplift-fast demo`."""

from pathlib import Path
from typing import Annotated

import typer

from deeplift_fast.cli.exit import Debug, reported


def demo(
    out: Annotated[Path, typer.Option(help="Output folder, made by this run.")] = Path("deeplift-demo"),
    mimic_root: Annotated[
        Path | None, typer.Option(help="A MIMIC-IV (2.2 or 3.1) or MIMIC-IV demo folder to use instead.")
    ] = None,
    rules: Annotated[str, typer.Option(help="Rule set: complete, rescale or pyhealth.")] = "complete",
    baseline: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Baseline of each patient: typical (fitted on the training part), removed or unk. Default: typical, "
            "or unk under --rules pyhealth.",
        ),
    ] = None,
    patients: Annotated[int, typer.Option(help="Patients of the synthetic hospital.")] = 1000,
    seed: Annotated[int, typer.Option(help="Seed of the hospital, the split and the training.")] = 0,
    device: Annotated[str, typer.Option(help="Device of the model, as PyTorch names it.")] = "cpu",
    force: Annotated[bool, typer.Option("--force", help="Replace an existing output folder.")] = False,
    debug: Debug = False,
) -> None:
    """Make or load a hospital, train a StageNet on it, and attribute every sample."""
    with reported(debug, "demo", "nothing was kept"):
        from deeplift_fast.demo.job import DemoOptions
        from deeplift_fast.demo.job import run as run_job

        code = run_job(DemoOptions(out, mimic_root, rules, patients, seed, device, force, baseline))
        if code:
            raise typer.Exit(code)
