"""`deeplift-fast cache`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deeplift_fast.cli.exit import Debug, reported
from deeplift_fast.cli.stdout import redirected

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
    quiet: Annotated[bool, typer.Option("--quiet", help="Show errors only.")] = False,
    debug: Debug = False,
) -> None:
    """Read a dataset once and keep its samples in a cache, which later runs of any model read instead.

    The cache holds patients' data, and only you may read it. A run makes the cache too, if it reads the whole dataset
    in one process; a run on a cluster does not.
    """
    with reported(debug, "cohort", "no cache was made", "errors" if quiet else "text") as reporter:
        from deeplift_fast.cli.recipe import load_recipe
        from deeplift_fast.cohort.making_caches import make_cache
        from deeplift_fast.cohort.progress import shown_on
        from deeplift_fast.support.events import new_run_id

        with redirected(silent=quiet) as stderr, reporter.writing_to(stderr):
            model, dataset, _ = load_recipe(recipe)
            place, progress = True if folder is None else folder, "none" if quiet else "auto"
            with shown_on(stderr, new_run_id()):
                made = make_cache(dataset, model, place, read_ahead=read_ahead, force=force, progress=progress)
        if not quiet:
            print(_line(made))


def _line(made: "MadeCache") -> str:
    size = f"{made.samples:,} samples, {made.bytes / 1e6:,.1f} MB"
    if not made.is_new:
        return f"{made.path}: there already, and sound: {size}"
    rate = f" ({made.samples / made.seconds:,.0f} samples/s)" if made.seconds else ""
    return f"{made.path}: {size}, made in {made.seconds:.1f} s{rate}"
