"""A small StageNet, trained with PyHealth's Trainer."""

import contextlib
import logging
import random
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from deeplift_fast.demo.samples import Samples
from deeplift_fast.pyhealth.as_read import with_masks
from deeplift_fast.pyhealth.features import read_features


@dataclass(frozen=True)
class Settings:
    """Sizes of the model and of its training; the defaults serve a thousand patients on two cores.

    Attributes:
        embedding_dim: width of the embeddings; many codes share few dimensions otherwise.
        chunk_size: units per level of StageNet.
        levels: levels of StageNet.
        epochs: most passes over the training part.
        patience: passes without improvement on the validation part before training stops.
        batch_size: samples per training step, and per call of the interpreter.
        learning_rate: step size of Adam.
        weight_decay: L2 penalty of Adam.
        timed_samples: samples after which no further batch is timed with both interpreters.
        timed_seconds: seconds after which none is.
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


def to_device(batch: Mapping[str, Any], device: torch.device | str) -> dict[str, Any]:
    """A batch of PyHealth's loader with its tensors, and tuples of tensors, on a device."""

    def move(item: Any) -> Any:
        if isinstance(item, Tensor):
            return item.to(device)
        return tuple(map(move, item)) if isinstance(item, tuple) else item

    return {key: move(item) for key, item in batch.items()}


def seed_everything(seed: int) -> None:
    """Seeds Python's, NumPy's and PyTorch's generators."""
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002  (what PyHealth draws from)
    torch.manual_seed(seed)


def train_stagenet(samples: Samples, settings: Settings, seed: int, device: str) -> Any:
    """Trains a StageNet and returns it in eval mode, with the weights of its best epoch.

    Args:
        samples: what to train and to choose the epoch on.
        settings: sizes and training.
        seed: seed of the weights, the order of samples and the dropout.
        device: a PyTorch device.

    Returns:
        A `pyhealth.models.StageNet` on `device`.
    """
    from pyhealth.models import StageNet
    from pyhealth.trainer import Trainer

    seed_everything(seed)
    model = StageNet(
        samples.train,
        embedding_dim=settings.embedding_dim,
        chunk_size=settings.chunk_size,
        levels=settings.levels,
    )
    # Loss, not AUROC: it is defined where all validation samples have the same label.
    watched = bool(len(samples.validation))
    with _quiet():
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

    `Trainer` passes no masks, and StageNet then reads the labs' state at the end of the *padding*: a prediction would
    depend on the batch it is in, and the function trained would not be the one explained.
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

    On matrices this small a second thread gains next to nothing, and where another program holds its core each
    operation waits for it: twenty times slower, measured.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Leaves PyHealth's progress bars and drops its notes."""
    logger = logging.getLogger("pyhealth")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            yield
    finally:
        logger.setLevel(level)
