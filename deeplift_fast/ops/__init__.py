"""The arithmetic of the rules, with one implementation per backend.

`ops.<op>` is a function for each op of `specs.py`, with the signature of its naive implementation. It checks its
arguments against the shapes and dtypes in `specs.py`, then PyTorch's dispatcher picks the implementation.

On CUDA the numbers of an index are not checked, since a check would wait for the device. An index outside of its tensor
reads or writes other memory.

`ops.unchecked.<op>` is for callers that have just made the shapes. It and raw calls of `torch.ops.deeplift_fast` skip
these checks, but kernels on the CPU raise `RuntimeError`, and plain torch its own errors, for every shape, dtype or
index that would lead outside of a tensor.
"""

from typing import TYPE_CHECKING, Any

from deeplift_fast.errors import BackendWarning
from deeplift_fast.ops.registry import FUNCTIONS, SCHEMAS, UNCHECKED, Backend, backend_for, backends, release_memory
from deeplift_fast.ops.specs import NAMESPACE, SPECS

__all__ = [
    "NAMESPACE",
    "SCHEMAS",
    "Backend",
    "BackendWarning",
    "backend_for",
    "backends",
    "release_memory",
    "unchecked",
]
__all__.extend(SPECS)

if TYPE_CHECKING:

    def __getattr__(name: str) -> Any: ...


unchecked = UNCHECKED
globals().update(FUNCTIONS)
