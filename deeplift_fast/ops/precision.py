"""Keeps products of float32 numbers at float32's precision, whatever the process has chosen for them.

PyTorch's settings let products round their float32 arguments to TF32 (10 bits) or bfloat16 (7 bits). A model's own
output bears that. Contributions are made of differences, and would lose up to four digits. Settings for float16 and
bfloat16 (`allow_fp16_reduced_precision_reduction` and the like) stay: results of these types have no more bits anyway.
"""

import contextlib
import functools
import threading
from collections.abc import Callable, Iterator

import torch

FULL = ("none", "ieee")

# Backend and operation, as PyTorch's settings have them, with the name in `torch.backends`. General ones come first:
# the later ones follow them where they are "none".
_SETTINGS = {
    ("generic", "all"): "all",
    ("cuda", "all"): "cudnn",
    ("mkldnn", "all"): "mkldnn",
    ("mkldnn", "matmul"): "mkldnn.matmul",
    ("mkldnn", "conv"): "mkldnn.conv",
    ("mkldnn", "rnn"): "mkldnn.rnn",
    (CONV := ("cuda", "conv")): "cudnn.conv",
    (RNN := ("cuda", "rnn")): "cudnn.rnn",
    (MATMUL := ("cuda", "matmul")): "cuda.matmul",
}
_BY_DEVICE = {"cpu": ("all", "mkldnn"), "cuda": ("all", "cuda", "cudnn")}

# Not the attributes of `torch.backends`: there, up to torch 2.14, writing to mkldnn's changes all of them.
_get = torch._C._get_fp32_precision_getter
_set = torch._C._set_fp32_precision_setter


class _Thread(threading.local):
    inside = False


_thread = _Thread()
_lock = threading.Lock()
_users = 0
_saved: dict[tuple[str, str], str] = {}
_saved_older: dict[tuple[str, str], str] = {}  # settings of PyTorch's older functions, which follow the newer ones


@contextlib.contextmanager
def full_precision() -> Iterator[None]:
    """Within it, products of float32 numbers have float32's precision.

    The settings are those of the process, so other threads' products have full precision meanwhile. Several threads may
    be inside; the last one restores the settings. A setting that the model or another thread changes meanwhile stays.
    """
    if _thread.inside:
        yield
        return
    _enter()
    try:
        yield
    finally:
        _leave()


def _enter() -> None:
    global _users
    with _lock:
        _users += 1
        _thread.inside = True
        try:
            _raise()
        except BaseException:
            _release()
            raise


def _leave() -> None:
    with _lock:
        _release()


def _release() -> None:
    global _users
    _thread.inside = False
    _users -= 1
    if not _users:
        _restore()


def in_full_precision[**P, R](function: Callable[P, R]) -> Callable[P, R]:
    """Run a function within :func:`full_precision`; warnings still point at the caller outside this package."""

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        if _thread.inside:  # without the cost of a context
            return function(*args, **kwargs)
        _enter()
        try:
            return function(*args, **kwargs)
        finally:
            _leave()

    return call


def reduced() -> dict[str, str]:
    """The settings that take precision from products of float32 numbers outside of :func:`full_precision`.

    Returns:
        `"tf32"` or `"bf16"`, by the name in `torch.backends`, such as `"cudnn.conv"`; `"all"` is
        `torch.backends.fp32_precision`.
    """
    with _lock:
        return {
            name: value
            for setting, name in _SETTINGS.items()
            if (value := _saved[setting] if setting in _saved else _get(*setting)) not in FULL
        }


def description(device: str = "") -> str:
    """The precision of float32 products in attributions, and the settings that ask for less.

    Args:
        device: the type of device whose settings are named; empty for every one.
    """
    prefixes = _BY_DEVICE.get(device, "")
    found = [f"{name} to {value}" for name, value in reduced().items() if name.startswith(prefixes)]
    return f"full (ieee), although torch.backends sets {', '.join(found)}" if found else "full (ieee), as set"


def _raise() -> None:
    """Set what is reduced to full precision, and save it.

    The general settings are set first. What is still reduced then is a setting's own value; the others are "none".
    """
    found = [setting for setting in _SETTINGS if _get(*setting) not in FULL]
    if not found:
        return
    convolution, product = _older(torch._C._get_cudnn_allow_tf32), _older(torch._C._get_cublas_allow_tf32)
    by_older = {CONV: convolution, RNN: convolution, MATMUL: product}
    for setting in found:
        value = _get(*setting)
        _saved[setting] = "none" if value in FULL else value
        if value not in FULL and not by_older.get(setting):
            _set(*setting, "ieee")
    if convolution:
        _saved_older[CONV] = "tf32"
        torch._C._set_cudnn_allow_tf32(False)
    if product:
        _saved_older[MATMUL] = torch.get_float32_matmul_precision()
        torch._C._set_cublas_allow_tf32(False)


def _older(read: Callable[[], bool]) -> bool:
    """Whether an older setting allows TF32; `False` if a newer one contradicts it, so that PyTorch refuses to tell."""
    try:
        return read()
    except RuntimeError:
        return False


def _restore() -> None:
    ours = {setting: value for setting, value in _saved.items() if _get(*setting) in FULL}
    if CONV in _saved_older and CONV in ours and RNN in ours:
        torch._C._set_cudnn_allow_tf32(True)
    if MATMUL in _saved_older and MATMUL in ours:
        torch._C._set_cublas_allow_tf32(True)
        if _saved_older[MATMUL] == "medium":
            on_cpu = _get("mkldnn", "matmul")
            torch.set_float32_matmul_precision("medium")
            _set("mkldnn", "matmul", on_cpu)
    for setting, value in ours.items():
        _set(*setting, value)
    _saved.clear()
    _saved_older.clear()
