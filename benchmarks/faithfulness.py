"""Measures the faithfulness of attributions on a planted hospital and on FreqShapes.

    python benchmarks/faithfulness.py                    # the study: 3 seeds of 5 models, 5 splits of FreqShapes
    python benchmarks/faithfulness.py --resume           # continues an interrupted study
    python benchmarks/faithfulness.py --table            # the README's table from results/faithfulness.json
    python benchmarks/faithfulness.py --tables           # every table
    python benchmarks/faithfulness.py --plot             # results/faithfulness.svg

The study uses one core. Each model and seed, and each split, is measured independently of the others.
`faithfulness_hospital.py` has the patients and models, `faithfulness_methods.py` the methods,
`faithfulness_reference.py` the game of removal, `faithfulness_measures.py` the measures, and `freqshapes.py` the second
study.
"""

import argparse
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import faithfulness_cell
import faithfulness_plot
import faithfulness_results
import faithfulness_tables
import freqshapes
import model_results
import torch
from faithfulness_hospital import HELD_OUT_BATCH, MODELS
from faithfulness_results import FREQSHAPES, HOSPITAL, RESULTS, Results

Cell = tuple[list[str], Callable[[], dict[str, Any]]]  # keys in the results, and the function that measures


def main(arguments: Sequence[str] | None = None) -> None:
    options = _options(arguments)
    if options.table or options.tables or options.plot:
        _show(options, faithfulness_results.read(options.out))
        return
    logging.getLogger("pyhealth").setLevel(logging.WARNING)
    torch.set_num_threads(1)  # a second thread gains nothing on small matrices
    settings = {"patients": options.patients, "permutations": options.permutations}
    results = faithfulness_results.fresh(settings)
    if options.resume:
        results = faithfulness_results.resumed(options.out, settings)
    results["machine"] = model_results.machine(threads=1)
    for (*folders, name), measure in _cells(options):
        _measure_once(results, folders, name, measure, options.out)
    print(faithfulness_tables.full(results))


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3], help="seeds of the hospital (1 2 3)")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS), metavar="MODEL")
    parser.add_argument("--patients", type=int, default=faithfulness_cell.PATIENTS, help="patients with a reference")
    parser.add_argument("--permutations", type=int, help="permutations per reference, even (default: by model)")
    parser.add_argument("--only", choices=[HOSPITAL, FREQSHAPES])
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--resume", action="store_true", help="measure only cells that --out lacks")
    parser.add_argument("--table", action="store_true", help="only print the small table of --out")
    parser.add_argument("--tables", action="store_true", help="only print all tables of --out")
    parser.add_argument("--plot", action="store_true", help="only draw --out as .svg beside it, and describe it")
    options = parser.parse_args(arguments)
    if not 1 <= options.patients <= HELD_OUT_BATCH:
        parser.error(f"--patients is {options.patients}; accepted: 1 to {HELD_OUT_BATCH}")
    count = options.permutations
    if count is not None and (count < 4 or count % 2):
        parser.error(f"--permutations is {count}; accepted: an even number of 4 or more (permutations form pairs)")
    return options


def _cells(options: argparse.Namespace) -> Iterator[Cell]:
    if options.only != FREQSHAPES:
        for model in options.models:
            for seed in options.seeds:
                measure = partial(faithfulness_cell.run, model, seed, options.patients, options.permutations)
                yield [HOSPITAL, model, str(seed)], measure
    if options.only != HOSPITAL:
        for split in range(1, freqshapes.SPLITS + 1):
            yield [FREQSHAPES, str(split)], partial(freqshapes.run, split)


def _measure_once(
    results: Results, folders: list[str], name: str, measure: Callable[[], dict[str, Any]], out: Path
) -> None:
    """Measures and stores a cell, unless the results have it."""
    place = results
    for folder in folders:
        place = place.setdefault(folder, {})
    if name in place:
        return
    start = time.perf_counter()
    place[name] = measure()
    faithfulness_results.write(out, results)
    print(f"{' '.join(folders)} {name}: {time.perf_counter() - start:.0f} s", flush=True)


def _show(options: argparse.Namespace, results: Results) -> None:
    if not results[HOSPITAL] and (options.table or options.plot):
        raise SystemExit(f"--out is {options.out}, which has only FreqShapes; run the study with --resume first")
    if options.table:
        print(faithfulness_tables.small(results))
    if options.tables:
        print(faithfulness_tables.full(results))
    if options.plot:
        picture = options.out.with_suffix(".svg")
        faithfulness_plot.draw(results, picture)
        print(f"{picture}: {faithfulness_plot.in_words(results)}")


if __name__ == "__main__":
    main()
