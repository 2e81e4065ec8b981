"""Peak memory of reading a whole cache, in a separate process.

`python cache_memory.py FOLDER SAMPLES` makes a cache of synthetic samples with two code sequences, if the folder has
none, and reads it in windows and batches. It prints megabytes: the peak before, the peak after, and the file's size.
"""

import json
import re
import subprocess
import sys
from pathlib import Path

PART, BATCH = 2048, 256


def peaks_of(folder: Path, samples: int) -> dict[str, float]:
    """Peak memory before the cache is opened and after it is read, and the size of its file, in megabytes."""
    command = [sys.executable, __file__, str(folder), str(samples)]
    subprocess.run(command, check=True, capture_output=True)  # makes the cache
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    return json.loads(lines[-1])


def main(folder: str, samples: str) -> None:
    import numpy as np

    from deeplift_fast.cohort.cache import CacheWriter, open_cache

    identity = {"class": "synthetic", "length": int(samples)}
    if open_cache(Path(folder), identity) is None:
        with CacheWriter(Path(folder), identity, int(samples)) as writer:
            for begin in range(0, int(samples), PART):
                writer.add(synthetic(begin, min(begin + PART, int(samples))))
            writer.finish()
        return
    before = peak()
    with open_cache(Path(folder), identity, required=True) as cache:
        for stretch in cache.stretches(lambda part: True, PART):
            for group in stretch.groups:
                for first in range(0, len(group.numbers), BATCH):
                    group.batch(np.arange(first, min(first + BATCH, len(group.numbers))))
        size = cache.path.stat().st_size / 1e6
    print(json.dumps({"before": before, "after": peak(), "file": size}))


def synthetic(begin: int, end: int):
    """Samples with two sequences of up to 40 and up to 20 codes, as `patients.sequences` draws them."""
    import numpy as np

    from deeplift_fast.cohort.samples import Ragged, RaggedGroup, Stretch

    draw, count = np.random.default_rng(begin), end - begin
    fields: dict = {"patient_id": [f"p{number}" for number in range(begin, end)]}
    for key, longest, codes in (("conditions", 40, 2002), ("procedures", 20, 502)):
        lengths = draw.integers(1, longest + 1, count)
        fields[key] = Ragged(draw.integers(2, codes, lengths.sum()), lengths)
    fields["label"] = Ragged(draw.integers(0, 2, count).astype(np.float32), np.ones(count, np.int64))
    names = {"patient_id": fields["patient_id"], "visit_id": [None] * count}
    return Stretch(begin // PART, begin, end, [RaggedGroup(np.arange(begin, end), fields)], names)


def peak() -> float:
    (kilobytes,) = re.findall(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())
    return int(kilobytes) / 1e3


if __name__ == "__main__":
    main(*sys.argv[1:])
