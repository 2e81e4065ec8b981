"""PyTorch's settings of the precision of float32 products, for tests."""

import pytest
import torch

from deeplift_fast.ops import precision

_MATMUL = torch.backends.cuda.matmul
SETTINGS = {
    "the default": lambda: None,
    "high": lambda: torch.set_float32_matmul_precision("high"),
    "medium": lambda: torch.set_float32_matmul_precision("medium"),
    "highest": lambda: torch.set_float32_matmul_precision("highest"),
    "allow_tf32": lambda: setattr(_MATMUL, "allow_tf32", True),
    "no TF32 in cuDNN": lambda: setattr(torch.backends.cudnn, "allow_tf32", False),
    "all": lambda: setattr(torch.backends, "fp32_precision", "tf32"),
    "cuDNN": lambda: setattr(torch.backends.cudnn, "fp32_precision", "tf32"),
    "convolutions": lambda: setattr(torch.backends.cudnn.conv, "fp32_precision", "ieee"),
    "recurrent layers": lambda: setattr(torch.backends.cudnn.rnn, "fp32_precision", "none"),
    "products": lambda: setattr(_MATMUL, "fp32_precision", "tf32"),
    "products in full": lambda: setattr(_MATMUL, "fp32_precision", "ieee"),
    "oneDNN": lambda: setattr(torch.backends.mkldnn.matmul, "fp32_precision", "bf16"),
    "oneDNN follows": lambda: setattr(torch.backends.mkldnn.matmul, "fp32_precision", "none"),
}
_OLDER = {
    "matmul_precision": torch.get_float32_matmul_precision,
    "cuda.matmul.allow_tf32": torch._C._get_cublas_allow_tf32,
    "cudnn.allow_tf32": torch._C._get_cudnn_allow_tf32,
}


def in_force():
    """The value of each setting that kernels read."""
    return {name: precision._get(*setting) for setting, name in precision._SETTINGS.items()}


def all_full():
    return set(in_force().values()) <= set(precision.FULL)


def readable():
    """The older settings; those that contradict the newer ones cannot be read."""
    found = {}
    for name, read in _OLDER.items():
        try:
            found[name] = read()
        except RuntimeError:
            continue
    return found


def state():
    """Everything that tells one state of the settings from another, also which of them follow the general one."""
    found = in_force(), readable()
    general = precision._get("generic", "all")
    precision._set("generic", "all", "bf16")
    following = in_force()
    precision._set("generic", "all", general)
    return *found, following


@pytest.fixture
def fresh_settings():
    """The defaults hold before and after the test."""
    reset()
    yield
    reset()


def reset():
    for setting in precision._SETTINGS:
        precision._set(*setting, "none")
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = True
    for place in (_MATMUL, torch.backends.mkldnn.matmul):
        place.fp32_precision = "none"
