"""Calls every op with arguments that are changed until most fit no more; a process of its own, since it may die.

Prints each call before it is made, then how it ended: `error`, `result`, or nothing where the process died in it. Each
contiguous tensor ends where memory that may not be touched begins.
"""

import ctypes
import mmap
import random
import resource
from pathlib import Path

import torch
from valid_calls import valid_calls

from deeplift_fast import ops

INTEGERS = (0, -1, 1, 3, 2**31 - 1, 2**31, 2**62, 2**63 - 1, -(2**63))
FLOATS = (0.0, float("nan"), float("inf"))
WORDS = ("", "secant", "derivative", "pyhealth", "stagenet", "lstm", "gru", "rnn_tanh", "relu")
DTYPES = (torch.float32, torch.float64, torch.float16, torch.int64, torch.int32, torch.bool)
PAIRS = 800  # of calls with two changed arguments, drawn
MEMORY = 1 << 30  # bytes that calls may take in all
NO_ACCESS = 0
LIBC = ctypes.CDLL(None)


def fenced(tensor):
    """A contiguous copy whose memory ends at a page that may not be read."""
    size = tensor.numel() * tensor.element_size()
    if size == 0:
        return tensor
    page = mmap.PAGESIZE
    pages = -(-size // page)
    memory = mmap.mmap(-1, (pages + 1) * page)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    assert LIBC.mprotect(ctypes.c_void_p(address + pages * page), page, NO_ACCESS) == 0
    flat = torch.frombuffer(memory, dtype=tensor.dtype, count=tensor.numel(), offset=pages * page - size)
    return flat.view(tensor.shape).copy_(tensor)


def freed(x):
    x = x.clone()
    x.untyped_storage().resize_(0)
    return x


def with_number(x, place, number):
    x = x.clone()
    x.view(-1)[place] = number
    return x


def changes_of_tensor(x):
    """What a tensor is replaced by, and what that is called."""
    yield "empty", x[:0]
    yield "a number", x.sum()
    yield "flat", x.reshape(-1)
    yield "in one more dimension", x[None]
    yield "on meta", x.to("meta")
    for dtype in DTYPES:
        if dtype != x.dtype:
            yield f"in {dtype}", x.to(dtype)
    for dim, size in enumerate(x.shape):
        yield f"shorter in {dim}", x.narrow(dim, 0, max(size - 1, 0))
        yield f"longer in {dim}", torch.cat([x, x.narrow(dim, 0, min(size, 1))], dim)
        yield f"expanded in {dim}", x.narrow(dim, 0, min(size, 1)).expand(x.shape) if size else x
        if x.dim() > 1:  # sizes that take no memory
            yield f"2**31 long in {dim}, empty", x.new_empty([2**31 if i == dim else 0 for i in range(x.dim())])
            yield f"empty in {dim}, 2**20 long", x.new_empty([0 if i == dim else 2**20 for i in range(x.dim())])
    if x.dim() > 1:
        yield "transposed", x.transpose(0, -1)
        yield "transposed, contiguous", x.transpose(0, -1).contiguous()
        yield "strided", x.transpose(0, -1).contiguous().transpose(0, -1)
    if x.dtype == torch.int64 and x.numel():
        yield "in reverse", x.flip(0)
        for place in {0, x.numel() - 1}:
            for number in (*INTEGERS, int(x.max()) + 1):
                yield f"with {number} at {place}", with_number(x, place, number)
    if x.is_floating_point() and x.numel():
        yield "of NaN", torch.full_like(x, torch.nan)


def changes(value, compiled):
    """What an argument is replaced by, and what that is called."""
    if isinstance(value, torch.Tensor):
        yield from changes_of_tensor(value)
        if compiled:  # PyTorch's own operations end the process
            yield "freed", freed(value)
    elif isinstance(value, bool):
        yield str(not value), not value
    elif isinstance(value, int):
        yield from ((str(number), number) for number in INTEGERS)
    elif isinstance(value, float):
        yield from ((str(number), number) for number in FLOATS)
    elif isinstance(value, str):
        yield from ((repr(word), word) for word in WORDS)
    else:
        yield "[]", []
        yield "longer", [*value, 1]
        for place in range(len(value)):
            yield from ((f"{n} at {place}", [*value[:place], n, *value[place + 1 :]]) for n in INTEGERS)


def call(op, given):
    """The results, which must be small."""
    given = {k: fenced(v) if _can_be_fenced(v) else v for k, v in given.items()}
    found = getattr(torch.ops.deeplift_fast, op.split(",")[0])(*given.values())
    for each in found if isinstance(found, tuple) else [found]:
        assert each.is_meta or each.numel() * each.element_size() < MEMORY, "a result takes absurd memory"


def _can_be_fenced(value):
    if not isinstance(value, torch.Tensor) or value.device.type != "cpu" or not value.is_contiguous():
        return False
    return value.untyped_storage().nbytes() > 0


def attempt(op, given, changed):
    print(f"{op}: {' and '.join(changed)}", end="\t", flush=True)
    try:
        call(op, given)
    except AssertionError:
        raise
    except Exception as error:  # any error is right, as long as it is one
        print("error", type(error).__name__, " ".join(str(error).split())[:200], sep="\t")
    else:
        print("result")


def main():
    torch.set_num_threads(2)
    calls = {(op, dtype): given for dtype in (torch.float32, torch.float64) for op, given in valid_calls(dtype).items()}
    for (op, dtype), given in calls.items():
        print(f"{op}: as it is in {dtype}", end="\t", flush=True)
        call(op, given)
        print("result")
    used = int(Path("/proc/self/statm").read_text().split()[0]) * mmap.PAGESIZE
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, resource.RLIM_INFINITY))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    draw, all_changes = random.Random(0), {}
    for (op, dtype), given in calls.items():
        if dtype == torch.float32:
            compiled = ops.backend_for(op.split(",")[0], "cpu") == "C++"
            all_changes[op] = [(k, text, new) for k, value in given.items() for text, new in changes(value, compiled)]
            for name, text, new in all_changes[op]:
                attempt(op, {**given, name: new}, [f"{name} {text}"])
    for _ in range(PAIRS):
        op = draw.choice(list(all_changes))
        chosen = draw.sample(all_changes[op], 2)
        given = calls[op, torch.float32] | {name: new for name, _, new in chosen}
        attempt(op, given, [f"{name} {text}" for name, text, _ in chosen])
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) << 10
    assert grown < MEMORY // 2, f"calls took {grown} bytes"
    print("all: done\tresult")


if __name__ == "__main__":
    main()
