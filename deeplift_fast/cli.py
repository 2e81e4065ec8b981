"""The command `deeplift-fast`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from deeplift_fast import __version__, doctor

INTERRUPTED = 130  # 128 + SIGINT, as shells report it


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status (0, 1, 2 for bad usage, 130 after Ctrl-C)."""
    options = _parser().parse_args(arguments)
    if options.command == "doctor":
        print(doctor.describe())
        return 0
    return _demo(options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="deeplift-fast", description="Fast DeepLIFT for models of health records.")
    parser.add_argument("--version", action="version", version=f"deeplift_fast {__version__}")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("doctor", help="versions, backends, and which backend each op uses on each device")
    demo = commands.add_parser(
        "demo",
        help="from hospital tables to attributions: make or load a hospital, train a StageNet, attribute every sample",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    demo.add_argument("--out", type=Path, default=Path("deeplift-demo"), help="output folder, made by this run")
    demo.add_argument("--mimic-root", type=Path, help="a MIMIC-IV (2.2 or 3.1) or MIMIC-IV demo folder to use instead")
    demo.add_argument("--rules", default="rescale", help="rule set: rescale, complete or pyhealth")
    demo.add_argument("--patients", type=int, default=1000, help="patients of the synthetic hospital")
    demo.add_argument("--seed", type=int, default=0, help="seed of the hospital, the split and the training")
    demo.add_argument("--device", default="cpu", help="device of the model, as PyTorch names it")
    demo.add_argument("--force", action="store_true", help="replace an existing output folder")
    return parser


def _demo(options: argparse.Namespace) -> int:
    try:
        from deeplift_fast.demo.job import DemoError, DemoOptions, run
    except ImportError as error:
        print(f'deeplift-fast: the demo needs {error.name}: pip install "deeplift_fast[demo]"', file=sys.stderr)
        return 1
    given = {name: value for name, value in vars(options).items() if name != "command"}
    try:
        return run(DemoOptions(**given))
    except (DemoError, NotImplementedError, ValueError) as error:
        print(f"deeplift-fast: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("deeplift-fast: interrupted; nothing was kept", file=sys.stderr)
        return INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
