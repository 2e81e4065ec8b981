"""The `client` of a run, checked before anything is read or written."""

from typing import Any

from deeplift_fast.errors import CohortError


def check_client(client: Any) -> None:
    """Raise unless this is `None`, or a Dask client that can be used.

    Raises:
        CohortError: if it is something else, asynchronous or closed; if Dask is not installed.
    """
    if client is None:
        return
    try:
        from distributed import Client
    except ImportError as error:
        raise CohortError(f'client is given, which needs {error.name}: pip install "deeplift_fast[dask]"') from error
    if not isinstance(client, Client):
        raise CohortError(
            f"client is a {type(client).__name__}; accepted: None, or a dask.distributed.Client, such as "
            "Client(cluster) or Client('tcp://scheduler:8786')"
        )
    if client.asynchronous:
        raise CohortError("client is asynchronous; accepted: one that waits, as Client(…) makes it by default")
    if client.status in ("closing", "closed"):
        raise CohortError("client is closed; make one anew, and close it when the run has ended")
