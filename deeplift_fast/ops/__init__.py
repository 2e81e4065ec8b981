"""Numbers in, numbers out: the arithmetic of the rules, with one implementation per backend.

`ops.<op>` is a function for each op of `specs.py`, with the signature of its naive implementation. It checks its
arguments, then PyTorch's dispatcher picks the implementation. `specs.py` has the shapes and dtypes that ops take.

On CUDA no number of an index is checked, since that would wait for the device: one that lies outside reads or writes
beside its tensor.

Raw calls of `torch.ops.deeplift_fast` are checked too: on the CPU the kernels raise `RuntimeError`, and plain torch the
errors below, where a shape, a dtype or a number that they index by would lead out of memory.
"""

from typing import TYPE_CHECKING, Any

from deeplift_fast.errors import BackendWarning
from deeplift_fast.ops.registry import FUNCTIONS, SCHEMAS, Backend, backend_for, backends, release_memory
from deeplift_fast.ops.specs import NAMESPACE, SPECS

__all__ = ["NAMESPACE", "SCHEMAS", "Backend", "BackendWarning", "backend_for", "backends", "release_memory", *SPECS]

if TYPE_CHECKING:

    def __getattr__(name: str) -> Any: ...


globals().update(FUNCTIONS)
