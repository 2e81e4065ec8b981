"""A cohort attributed by several machines, through Dask.

A Dask scheduler runs any code that it receives, so it must not be open to a network. Either all processes use TLS with
certificates of your own authority (https://distributed.dask.org/en/stable/tls.html):

    first machine    dask scheduler --protocol tls --tls-ca-file ca.pem --tls-cert me.pem --tls-key me.key
    every machine    dask worker tls://first:8786 --nthreads 1 --nworkers 8 --no-dashboard \\
                         --tls-ca-file ca.pem --tls-cert me.pem --tls-key me.key
                     (one worker per GPU: CUDA_VISIBLE_DEVICES=0 dask worker …, and so on)
    then             SCHEDULER=tls://first:8786 TLS_CA=ca.pem TLS_CERT=me.pem TLS_KEY=me.key OUT=/shared/run \\
                         python examples/cohort_dask.py

or, without SCHEDULER, all processes are on one machine and use its loopback interface. The output is a folder that
every machine can write to, or an fsspec URL.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from dask.distributed import Client, LocalCluster, Security
from pyhealth.datasets import create_sample_dataset
from pyhealth.models import MLP

from deeplift_fast import DeepLift
from deeplift_fast.cohort import attribute_cohort

CODES = ("I50.9", "N17.9", "A41.9", "I10", "E78.5", "Z79.4")


def build() -> tuple[Any, Any]:
    """A model and its dataset. Replace them with your own; examples/cohort_recipe.py loads a trained model."""
    torch.manual_seed(0)
    samples = [
        {"patient_id": f"patient-{n}", "codes": [CODES[n % 6], CODES[n % 5]], "mortality": n % 2} for n in range(200)
    ]
    dataset = create_sample_dataset(samples, {"codes": "sequence"}, {"mortality": "binary"}, dataset_name="example")
    return MLP(dataset, embedding_dim=16, hidden_dim=16), dataset


@contextmanager
def connect() -> Iterator[Client]:
    """A client of SCHEDULER, by TLS only; without SCHEDULER, of two processes on the loopback interface.

    The cluster is closed here, because a client does not close its cluster, and an open cluster may delay Python's exit
    by minutes.
    """
    address = os.environ.get("SCHEDULER")
    if address is None:
        options = {"n_workers": 2, "threads_per_worker": 1, "host": "127.0.0.1", "dashboard_address": None}
        with LocalCluster(**options) as cluster, Client(cluster) as client:
            yield client
        return
    if not address.startswith("tls://"):
        raise SystemExit(f"SCHEDULER is {address}; accepted: a tls:// address")
    files = {"tls_ca_file": "TLS_CA", "tls_client_cert": "TLS_CERT", "tls_client_key": "TLS_KEY"}
    named = {setting: os.environ[variable] for setting, variable in files.items()}
    with Client(address, security=Security(require_encryption=True, **named)) as client:
        yield client


def main() -> None:
    """Attributes the cohort, part by part, on all workers."""
    model, dataset = build()
    out = os.environ.get("OUT", "cohort-dask")
    with connect() as client:
        cohort = attribute_cohort(DeepLift(model, rules="complete"), dataset, out, part_samples=50, client=client)
    print(f"{cohort.samples} samples in {cohort.parts} parts, {cohort.failures} failed: see {cohort.out}")


if __name__ == "__main__":
    main()
