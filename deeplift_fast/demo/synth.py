"""The synthetic hospital on its own."""

from pathlib import Path

from deeplift_fast.demo.hospital import write_hospital
from deeplift_fast.demo.output import check_out, private, replaced
from deeplift_fast.errors import DemoError
from deeplift_fast.support.home import expanded

_OUT = (("hosp/labevents.csv.gz",), "a hospital", "DIR")


def write_new_hospital(folder: Path, patients: int, seed: int, force: bool = False) -> None:
    """Writes a hospital to a new folder, which appears once it is complete.

    Args:
        folder: must not exist, unless `force`.
        patients: number of patients, 1 or more.
        seed: 0 or more.
        force: whether a hospital at `folder` is replaced.

    Raises:
        DemoError: if an argument is not accepted, or the folder cannot be written.
    """
    if patients < 1:
        raise DemoError(f"--patients is {patients}; accepted: 1 or more")
    if seed < 0:
        raise DemoError(f"--seed is {seed}; accepted: 0 or more")
    folder = expanded(folder, "DIR")
    check_out(folder, force, *_OUT)
    with private(), replaced(folder, force, *_OUT) as beside:
        try:
            write_hospital(beside, patients, seed)
        except OSError as error:
            raise DemoError(f"cannot write to {folder.parent}: {error.strerror}; nothing was kept") from error
