"""`deeplift-fast run`."""

import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import typer

from deeplift_fast.cli.exit import SOME_FAILED, Debug, Report, reported
from deeplift_fast.cli.shared_options import LogJson, Quiet, style_of
from deeplift_fast.cli.stdout import redirected
from deeplift_fast.support.events import Level, event_line, new_run_id

if TYPE_CHECKING:
    from deeplift_fast.cohort.run import Cohort

_Cluster = Callable[[], AbstractContextManager[Any]]


def run(
    recipe: Annotated[
        str, typer.Argument(metavar="RECIPE", help="module:function or file.py:function; returns (model, dataset).")
    ],
    out: Annotated[str, typer.Option(metavar="DIR", help="Output folder, or an fsspec URL such as s3://bucket/run.")],
    rules: Annotated[str, typer.Option(help="Rule set: complete, rescale or pyhealth.")] = "complete",
    steps: Annotated[int, typer.Option(min=1, help="Segments of the path from baseline to input.")] = 1,
    baseline: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Baseline of each sample: removed, unk, or typical (fitted on a part of the dataset). Default: the "
            "recipe's, else the rule set's.",
        ),
    ] = None,
    target: Annotated[
        int | None,
        typer.Option(
            help="Class to explain; negative numbers count from the last. Default: each sample's predicted class."
        ),
    ] = None,
    budget: Annotated[
        int | None, typer.Option(min=1, help="Padded steps per batch. Default: chosen within --memory.")
    ] = None,
    memory: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE",
            help="Memory for attribution, such as 8GB. Default: a quarter of the free memory, or half of a GPU's.",
        ),
    ] = None,
    interactions: Annotated[
        int | None,
        typer.Option(
            min=2,
            max=64,
            metavar="N",
            help="Write a third table: how the N strongest codes of each sample act together, pair by pair. The run "
            "takes up to N + 2 times as long.",
        ),
    ] = None,
    part_samples: Annotated[
        int, typer.Option(min=1, help="Samples per part; a kill loses the parts that are not finished.")
    ] = 4096,
    workers: Annotated[
        int, typer.Option(min=1, help="Processes on this machine, which share its cores; on CUDA one GPU each.")
    ] = 1,
    read_ahead: Annotated[
        int | None, typer.Option(min=0, help="Processes that read ahead; 0 for none. Default: chosen by the run.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume/--force", help="Continue the run in DIR, or remove it and start over.")
    ] = True,
    cache: Annotated[
        bool,
        typer.Option(
            "--cache/--no-cache",
            help="Read samples from the dataset's cache, which the first run over the whole dataset makes, if it has "
            "no --workers.",
        ),
    ] = True,
    limit: Annotated[int | None, typer.Option(min=1, help="Attribute the first N samples only.")] = None,
    device: Annotated[str | None, typer.Option(help="Device for the model, as PyTorch names it.")] = None,
    shared: Annotated[
        bool, typer.Option("--shared", help="Let other users read the tables, as far as your umask allows.")
    ] = False,
    quiet: Quiet = False,
    log_json: LogJson = False,
    debug: Debug = False,
) -> None:
    """Attribute every sample of a dataset, and write Parquet tables part by part.

    The same command resumes an interrupted run. A sample that cannot be attributed goes to failures.parquet with the
    reason; the run goes on and ends with exit code 3.
    """
    style = style_of(quiet, log_json)
    kept = "finished parts are kept: the same command goes on with the rest"
    number = new_run_id()
    with reported(debug, "cohort", kept, style, number) as reporter:
        from deeplift_fast.cli.sizes import parse_bytes

        options = {
            "out": out,
            **({} if baseline is None else {"baseline": baseline}),
            "target_class_idx": target,
            "budget": budget,
            "memory": None if memory is None else parse_bytes(memory),
            "interactions": interactions,
            "part_samples": part_samples,
            "read_ahead": read_ahead,
            "cache": cache,
            "limit": limit,
            "force": not resume,
            "shared": shared,
            "progress": "none" if quiet else "json" if log_json else "auto",
        }
        with redirected(silent=quiet or log_json) as stderr, reporter.writing_to(stderr):
            reporter.loading(recipe)
            _check(rules, steps, baseline, interactions, workers, device)
            _check_place(out)
            cluster = _cluster(workers, device, reporter.warning, debug)
            method = {"rules": rules, "steps": steps}
            cohort = _attribute(recipe, device, method, options, cluster, (stderr, number))
        if not quiet:
            print(_json_line(cohort, number) if log_json else _line(cohort), end="")
        if cohort.failures:
            if not log_json:  # its last line has the number of failures
                failed = f"{cohort.failures:,} sample(s) could not be attributed"
                reporter.error(f"{failed}; {cohort.out}/failures.parquet says why", SOME_FAILED)
            raise typer.Exit(SOME_FAILED)


def _check(
    rules: str, steps: int, baseline: str | None, interactions: int | None, workers: int, device: str | None
) -> None:
    """Checks options before the recipe runs, which may take long."""
    from deeplift_fast.cli.workers import worker_environments
    from deeplift_fast.cohort.cohort_baseline import check_name
    from deeplift_fast.core.devices import check_device
    from deeplift_fast.core.options import Options

    Options(rules, steps)
    if baseline is not None:
        check_name("--baseline", baseline, rules)
    if interactions is not None:
        from deeplift_fast.pyhealth.joint_effects import refuse_as_pyhealth

        refuse_as_pyhealth(rules)
    if device is not None:
        check_device(device)
    if workers > 1:
        worker_environments(workers, device)


def _check_place(out: str) -> None:
    """Refuses a local folder that cannot be written, before the recipe runs."""
    from deeplift_fast.cohort.local_store import LocalStore
    from deeplift_fast.cohort.store import open_store
    from deeplift_fast.errors import CohortError

    store = open_store(out)
    if not isinstance(store, LocalStore):
        return
    folder = store.folder.absolute()
    nearest = next(each for each in (folder, *folder.parents) if os.path.exists(each))
    if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
        raise CohortError(f"--out is {out}, but {nearest} is no folder that you may write; choose another folder")


def _cluster(workers: int, device: str | None, report: Report, debug: bool) -> _Cluster:
    """The cluster, to be started after the recipe; its client is `None` for one process."""
    from deeplift_fast.cli.workers import local_client

    return nullcontext if workers == 1 else partial(local_client, workers, device, report, debug)


def _attribute(
    recipe: str,
    device: str | None,
    method: dict[str, Any],
    options: dict[str, Any],
    cluster: _Cluster,
    shown: tuple[TextIO, str],
) -> "Cohort":
    """Runs the recipe and attributes its dataset; `shown` has the file and the id for :func:`shown_on`."""
    from deeplift_fast.cli.recipe import load_recipe
    from deeplift_fast.cohort import attribute_cohort
    from deeplift_fast.cohort.progress import shown_on
    from deeplift_fast.core.targets import class_target
    from deeplift_fast.pyhealth.interpreter import DeepLift

    model, dataset, further = load_recipe(recipe)
    if device is not None:
        model = model.to(device)
    interpreter = DeepLift(model, **method)
    class_target(model, options["target_class_idx"], "--target")
    with shown_on(*shown), cluster() as client:
        return attribute_cohort(interpreter, dataset, client=client, **(further | options))


def _line(cohort: "Cohort") -> str:
    spent = {"reading": cohort.reading, "attribution": cohort.attribution, "writing": cohort.writing}
    shares = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in spent.items())
    done = f"{cohort.samples:,} sample(s) attributed, in {cohort.parts:,} part(s)"
    if not cohort.attribution:  # 0 seconds: no part was left
        done = f"nothing to do: {cohort.samples:,} sample(s), in {cohort.parts:,} part(s), were attributed before"
    line = f"{cohort.out}: {done}; this run took {cohort.seconds:.1f} s ({shares})\n"
    if cohort.cache is not None:
        line += f"samples read from cache {cohort.cache}\n"
    if cohort.made_cache is not None:
        line += f"cache made for later runs: {cohort.made_cache}\n"
    return line


def _json_line(cohort: "Cohort", run: str) -> str:
    names = ("samples", "failures", "parts", "seconds", "reading", "attribution", "writing", "budget")
    numbers = {name: _rounded(getattr(cohort, name)) for name in names}
    level: Level = "warning" if cohort.failures else "info"
    caches = {"cache": cohort.cache, "made_cache": cohort.made_cache}
    return event_line(run, "done", level, out=str(cohort.out), **numbers, **caches)


def _rounded(number: float) -> float:
    return round(number, 3) if isinstance(number, float) else number
