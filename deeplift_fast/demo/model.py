"""A small StageNet, trained with PyHealth's Trainer."""

import contextlib
import random
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from deeplift_fast.cohort.attributing import to_device
from deeplift_fast.demo.samples import Samples, quiet_pyhealth
from deeplift_fast.pyhealth.as_read import with_masks
from deeplift_fast.pyhealth.features import read_features


@dataclass(frozen=True)
class Settings:
    """Sizes of the model and of its training; the defaults suit a thousand patients on two cores.

    Attributes:
        embedding_dim: width of the embeddings.
        chunk_size: units per level of StageNet.
        levels: levels of StageNet.
        epochs: largest number of passes over the training part.
        patience: passes without improvement on the validation part before training stops.
        batch_size: samples per training step, and per call of the interpreter.
        learning_rate: step size of Adam.
        weight_decay: L2 penalty of Adam.
        timed_samples: number of samples after which timing stops.
        timed_seconds: number of seconds after which timing stops.
    """

    embedding_dim: int = 128
    chunk_size: int = 32
    levels: int = 3
    epochs: int = 10
    patience: int = 3
    batch_size: int = 64
    learning_rate: float = 2e-3
    weight_decay: float = 1e-3
    timed_samples: int = 320
    timed_seconds: float = 20.0

    @property
    def sizes(self) -> dict[str, int]:
        """The sizes of the StageNet, as its arguments."""
        return {name: getattr(self, name) for name in ("embedding_dim", "chunk_size", "levels")}


def train_stagenet(samples: Samples, settings: Settings, seed: int, device: str) -> Any:
    """Trains a StageNet and returns it in eval mode, with the weights of its best epoch.

    Args:
        samples: samples to train on, and to choose the epoch on.
        settings: sizes and training.
        seed: seed of the weights, the order of samples and the dropout.
        device: a PyTorch device.

    Returns:
        A `pyhealth.models.StageNet` on `device`.
    """
    from pyhealth.models import StageNet
    from pyhealth.trainer import Trainer

    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002  (PyHealth draws from it)
    torch.manual_seed(seed)
    model = StageNet(samples.train, **settings.sizes)
    # The epoch is chosen by loss, which is defined even if all validation samples have the same label.
    watched = bool(len(samples.validation))
    with warnings.catch_warnings(), quiet_pyhealth():
        warnings.simplefilter("ignore", UserWarning)
        Trainer(model, metrics=["accuracy"], device=device, enable_logging=False).train(
            train_dataloader=_MaskedLoader(samples.train, model, settings.batch_size, shuffle=True, seed=seed),
            val_dataloader=_MaskedLoader(samples.validation, model, settings.batch_size) if watched else None,
            epochs=settings.epochs,
            optimizer_params={"lr": settings.learning_rate},
            weight_decay=settings.weight_decay,
            max_grad_norm=1.0,
            monitor="loss" if watched else None,
            monitor_criterion="min",
            patience=settings.patience,
        )
    return model.eval()


class _MaskedLoader:
    """PyHealth's loader, with the masks that its DeepLift derives.

    `Trainer` passes no masks, so StageNet would read the labs' state at the end of the *padding*. Predictions would
    depend on the batch, and the trained function would differ from the explained one.
    """

    def __init__(self, dataset: Any, model: Any, batch_size: int, shuffle: bool = False, seed: int = 0) -> None:
        from pyhealth.datasets import get_dataloader

        self.batch_size = batch_size
        self._loader = get_dataloader(dataset, batch_size, shuffle=shuffle, seed=seed)
        self._model = model

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for batch in self._loader:
            moved = to_device(batch, self._model.device)
            features = read_features(self._model, moved, use_embeddings=True)
            yield moved | {key: each.parts for key, each in with_masks(self._model, features, "complete").items()}


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Lets PyTorch use one thread on the CPU.

    A second thread gains almost nothing on matrices this small. If another program uses its core, each operation waits
    for it; a measured case took twenty times as long.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
