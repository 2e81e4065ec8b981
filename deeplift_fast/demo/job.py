"""The main job: loads or writes a hospital, trains a model, attributes every sample, and prints a report."""

import shutil
import sys
import time
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deeplift_fast.demo.output import check_out, private, replaced
from deeplift_fast.errors import DemoError
from deeplift_fast.support.home import expanded

if TYPE_CHECKING:
    from deeplift_fast.baselines import Baseline
    from deeplift_fast.demo.model import Settings
    from deeplift_fast.demo.samples import Samples
    from deeplift_fast.demo.speed import Speed

__all__ = ["DemoError", "DemoOptions", "run"]

MIN_PATIENTS = 20

SOME_FAILED = 3

# An earlier release wrote one file instead of the folder.
_OUT = (("attributions", "attributions.parquet"), "a result of this job", "--out")


@dataclass(frozen=True)
class DemoOptions:
    """The options of the command.

    Attributes:
        out: output folder; it must not exist, unless `force`.
        mimic_root: folder of a MIMIC-IV release; `None` for a synthetic hospital.
        rules: rule set of the interpreter.
        patients: size of the synthetic hospital.
        seed: seed of the hospital, the split and the model.
        device: a PyTorch device.
        force: whether to replace an earlier result at `out`.
        baseline: name of the baseline; `None` for `"typical"`, or `"unk"` under `"pyhealth"`.
    """

    out: Path = Path("deeplift-demo")
    mimic_root: Path | None = None
    rules: str = "complete"
    patients: int = 1000
    seed: int = 0
    device: str = "cpu"
    force: bool = False
    baseline: str | None = None

    @property
    def baseline_name(self) -> str:
        """The name of the baseline, with the default filled in."""
        return self.baseline or ("unk" if self.rules == "pyhealth" else "typical")


def run(options: DemoOptions, settings: "Settings | None" = None) -> int:
    """Runs the job and prints its report.

    The job writes to a temporary folder beside `options.out`. The folder is renamed at the end, and removed on failure.

    Args:
        options: the options.
        settings: sizes of the model and its training; `None` for the defaults.

    Returns:
        0, or 3 if samples could not be attributed; the report has their number.

    Raises:
        DemoError: if an option is not accepted, or a file cannot be read or written.
    """
    started = time.perf_counter()
    options = _with_home(options)
    _check(options)
    with private(), replaced(options.out, options.force, *_OUT) as folder:
        # Imported after the checks of options, because importing PyHealth takes seconds.
        from deeplift_fast.demo.model import Settings
        from deeplift_fast.demo.pages import COHORT, PATIENT

        report, failures = _run_in(folder, options, settings or Settings())
        minutes, seconds = divmod(round(time.perf_counter() - started), 60)
        report += f"\n\nTook {minutes} min {seconds} s."
        report += "\n\nPages, for a browser: the held-out patient with the highest risk, and the cohort"
        report += f"\n  {options.out / PATIENT}\n  {options.out / COHORT}"
        (folder / "report.txt").write_text(report + "\n", encoding="utf-8")
    print(report)
    return SOME_FAILED if failures else 0


def _with_home(options: DemoOptions) -> DemoOptions:
    """Options with `~` in folders replaced by the home folder."""
    mimic = None if options.mimic_root is None else expanded(options.mimic_root, "--mimic-root")
    return replace(options, out=expanded(options.out, "--out"), mimic_root=mimic)


def _check(options: DemoOptions) -> None:
    """Checks the options before any work is done."""
    from deeplift_fast.cohort.cohort_baseline import check_name
    from deeplift_fast.core.devices import check_device
    from deeplift_fast.core.options import Options
    from deeplift_fast.demo.samples import check_tables

    try:
        Options(options.rules)
        check_name("--baseline", options.baseline_name, options.rules)
        check_device(options.device)
    except ValueError as error:
        raise DemoError(str(error)) from error
    if options.patients < MIN_PATIENTS:
        raise DemoError(f"--patients is {options.patients}; accepted: {MIN_PATIENTS} or more")
    if options.seed < 0:
        raise DemoError(f"--seed is {options.seed}; accepted: 0 or more")
    if options.mimic_root is not None:
        check_tables(options.mimic_root)
    check_out(options.out, options.force, *_OUT)


def _run_in(folder: Path, options: DemoOptions, settings: "Settings") -> tuple[str, int]:
    """Does all the work in `folder`; returns the report and the number of failed samples."""
    from deeplift_fast import DeepLift
    from deeplift_fast.demo.hospital import write_hospital
    from deeplift_fast.demo.kept import keep
    from deeplift_fast.demo.model import one_thread, train_stagenet
    from deeplift_fast.demo.pages import write_pages
    from deeplift_fast.demo.planted import PLANTED
    from deeplift_fast.demo.report import Facts, write_report
    from deeplift_fast.demo.samples import load_samples
    from deeplift_fast.report.model_run import ModelRun

    mimic, planted = options.mimic_root, None
    if mimic is None:
        mimic, planted = folder / "hospital", PLANTED
        _say(f"Writing a hospital of {options.patients:,} patients")
        write_hospital(mimic, options.patients, options.seed)
    cache = folder / "cache"
    _say("Reading the tables through PyHealth (half a minute until its first progress bar)")
    samples = load_samples(mimic.resolve(), cache, options.seed)
    with one_thread():
        _say("Training a StageNet")
        model = train_stagenet(samples, settings, options.seed, options.device)
        keep(folder, model, samples, settings, options)
        baseline = _baseline(samples, options)
        interpreter = DeepLift(model, rules=options.rules, baseline=baseline)
        _say("Attributing every sample")
        failures = _attribute(interpreter, samples, folder)
        _say("Timing against PyHealth's DeepLift")
        speed = _compare(interpreter, samples, settings)
        _say("Writing the pages of a patient and of the cohort")
        write_pages(folder, mimic, ModelRun(model, samples.everything, baseline, _lab_names()))
    shutil.rmtree(cache)
    where = f"a synthetic hospital of {options.patients:,} patients" if planted else str(options.mimic_root)
    facts = Facts(
        title=f'DeepLIFT, rules="{options.rules}", on {where} (seed {options.seed}, {options.device})',
        speed=speed,
        mimic=mimic,
        planted=planted,
        shown_at=options.out,
    )
    return write_report(folder, facts), failures


def _say(stage: str) -> None:
    """Prints the next stage on standard error, beside the progress bars."""
    print(f"{stage} …", file=sys.stderr, flush=True)


def _baseline(samples: "Samples", options: DemoOptions) -> "str | Baseline":
    """The baseline: a name, or fitted on the training part."""
    if options.baseline_name != "typical":
        return options.baseline_name
    from deeplift_fast.baselines import typical

    return typical(samples.train, seed=options.seed, dimensions=_lab_names())


def _lab_names() -> dict[str, list[str]]:
    from deeplift_fast.tasks import MortalityWithStaysMIMIC4

    return {"labs": MortalityWithStaysMIMIC4.LAB_CATEGORY_NAMES}


def _attribute(interpreter: Any, samples: "Samples", folder: Path) -> int:
    """Writes the tables of all samples; returns the number of failed samples."""
    from deeplift_fast import ConvergenceWarning
    from deeplift_fast.cohort import attribute_cohort

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the report counts these samples
        found = attribute_cohort(
            interpreter, samples.everything, folder, dimensions=_lab_names(), splits=samples.splits
        )
    return found.failures


def _compare(interpreter: Any, samples: "Samples", settings: "Settings") -> "Speed":
    from pyhealth.datasets import get_dataloader
    from pyhealth.interpret.methods import DeepLift as PyHealthDeepLift

    from deeplift_fast.demo.speed import compare_speed

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return compare_speed(
            interpreter.attribute,
            PyHealthDeepLift(interpreter.model).attribute,
            get_dataloader(samples.train, settings.batch_size),
            interpreter.model.device,
            settings.timed_samples,
            settings.timed_seconds,
        )
