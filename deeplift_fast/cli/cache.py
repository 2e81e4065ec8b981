"""`deeplift-fast cache`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deeplift_fast.cli.exit import Debug, reported
from deeplift_fast.cli.shared_options import LogJson, Quiet, style_of
from deeplift_fast.cli.stdout import redirected
from deeplift_fast.support.events import event_line, new_run_id

if TYPE_CHECKING:
    from deeplift_fast.cohort.making_caches import MadeCache


def cache(
    recipe: Annotated[
        str, typer.Argument(metavar="RECIPE", help="module:function or file.py:function; returns (model, dataset).")
    ],
    folder: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder for the cache. Default: one beside the dataset's files.")
    ] = None,
    read_ahead: Annotated[
        int | None, typer.Option(min=0, help="Processes that read ahead; 0 for none. Default: chosen by the command.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Make the cache again, even if it is sound.")] = False,
    quiet: Quiet = False,
    log_json: LogJson = False,
    debug: Debug = False,
) -> None:
    """Read a dataset once and keep its samples in a cache, which later runs of any model read instead.

    The cache holds patients' data, and only you may read it. A run makes the cache too, if it reads the whole dataset
    in one process; a run on a cluster does not.
    """
    style = style_of(quiet, log_json)
    number = new_run_id()
    with reported(debug, "cohort", "no cache was made", style, number) as reporter:
        from deeplift_fast.cli.recipe import load_recipe
        from deeplift_fast.cohort.making_caches import make_cache
        from deeplift_fast.cohort.progress import shown_on

        with redirected(silent=quiet or log_json) as stderr, reporter.writing_to(stderr):
            reporter.loading(recipe)
            model, dataset, _ = load_recipe(recipe)
            place = True if folder is None else folder
            progress = "none" if quiet else "json" if log_json else "auto"
            with shown_on(stderr, number):
                made = make_cache(dataset, model, place, read_ahead=read_ahead, force=force, progress=progress)
        if not quiet:
            print(_json_line(made, number) if log_json else _line(made), end="")


def _line(made: "MadeCache") -> str:
    size = f"{made.samples:,} samples, {made.bytes / 1e6:,.1f} MB"
    if not made.is_new:
        return f"{made.path}: there already, and sound: {size}\n"
    rate = f" ({made.samples / made.seconds:,.0f} samples/s)" if made.seconds else ""
    return f"{made.path}: {size}, made in {made.seconds:.1f} s{rate}\n"


def _json_line(made: "MadeCache", run: str) -> str:
    numbers = {"samples": made.samples, "bytes": made.bytes, "seconds": round(made.seconds, 3), "is_new": made.is_new}
    return event_line(run, "done", "info", cache=str(made.path), **numbers)
