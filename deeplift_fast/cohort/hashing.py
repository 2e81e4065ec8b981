"""Digests of everything that a cohort's numbers depend on, equal in every process and on every machine."""

import hashlib
from collections.abc import Mapping, Sequence, Set
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from deeplift_fast.cohort.odd_tensors import has_plain_memory

SHORT = 12
"""Characters of a digest in messages."""


def digest(thing: Any) -> str:
    """SHA-256, in hexadecimal, of a nested object.

    Args:
        thing: numbers, texts, bytes, tensors and arrays (with dtype and shape), and mappings (in any order), sequences
            and sets of them. Of any other object only the class counts.
    """
    hasher = hashlib.sha256()
    _feed(hasher, thing)
    return hasher.hexdigest()


def class_name(thing: Any) -> str:
    """The full name of a class, or of an object's class."""
    kind = thing if isinstance(thing, type) else type(thing)
    return f"{kind.__module__}.{kind.__qualname__}"


def of_weights(model: nn.Module) -> str:
    """The digest of a model's parameters and buffers by name."""
    return digest({name: value for name, value in model.state_dict().items() if isinstance(value, Tensor)})


def of_processors(processors: Mapping[str, Any]) -> str:
    """The digest of fitted processors by key: their classes and learned state, such as vocabularies."""
    learned = {}
    for key, processor in processors.items():
        state = {name: value for name, value in vars(processor).items() if not callable(value)}
        learned[key] = (type(processor).__qualname__, state)
    return digest(learned)


def _feed(hasher: Any, thing: Any) -> None:
    if isinstance(thing, Tensor) and not has_plain_memory(thing):
        hasher.update(f"tensor {thing.dtype} {thing.layout} {thing.device.type} {thing.is_nested} ".encode())
    elif isinstance(thing, Tensor):
        _feed_array(hasher, thing.detach().cpu().resolve_conj().resolve_neg())
    elif isinstance(thing, np.ndarray | np.generic) and thing.dtype != object:
        _feed_array(hasher, np.asarray(thing))
    elif isinstance(thing, Mapping):
        _feed_all(hasher, "mapping", [part for _, pair in sorted(_keyed(thing)) for part in pair])
    elif isinstance(thing, Set):
        _feed_all(hasher, "set", sorted(digest(item) for item in thing))
    elif isinstance(thing, str | bytes):
        data = thing.encode(errors="surrogatepass") if isinstance(thing, str) else thing
        hasher.update(f"{type(thing).__name__} {len(data)} ".encode() + data)
    elif isinstance(thing, Sequence | np.ndarray):
        _feed_all(hasher, "sequence", thing)
    elif isinstance(thing, bool | int | float | None):
        hasher.update(f"{type(thing).__name__} {thing!r} ".encode())
    else:
        hasher.update(f"object {class_name(type(thing))} ".encode())


def _keyed(mapping: Mapping) -> list[tuple[str, tuple[str, str]]]:
    """Pairs to be sorted by their keys' digests, since the order of insertion must not matter."""
    if all(isinstance(key, str) and isinstance(value, int) for key, value in mapping.items()):
        return [(key, (key, str(int(value)))) for key, value in mapping.items()]  # the quick way for a vocabulary
    return [(digest(key), (digest(key), digest(value))) for key, value in mapping.items()]


def _feed_all(hasher: Any, kind: str, things: Any) -> None:
    hasher.update(f"{kind} ( ".encode())
    if {*map(type, things)} == {str}:  # at once, since a vocabulary has thousands
        texts = (thing.encode(errors="surrogatepass") for thing in things)
        hasher.update(b"".join([b"str %d %s" % (len(data), data) for data in texts]))
    else:
        for thing in things:
            _feed(hasher, thing)
    hasher.update(b") ")


def _feed_array(hasher: Any, array: Tensor | np.ndarray) -> None:
    hasher.update(f"array {str(array.dtype).removeprefix('torch.')} {tuple(array.shape)} ".encode())
    if isinstance(array, Tensor):
        array = array.contiguous().reshape(-1).view(torch.uint8).numpy()
    hasher.update(np.ascontiguousarray(array).tobytes())
