"""Predicted samples/s of whole models on an H100, and the tables of `docs/gpu.md`. No GPU has run any of it.

    python benchmarks/gpu_predictions.py

puts the tables into the page. Sizes are PyHealth's defaults in `model_cases.py`; batches are padded to their longest
sample, as the route for GPUs keeps every step.
"""

from dataclasses import dataclass
from pathlib import Path

from gpu_kernels import HIDDEN, KERNELS, WIDTH, WINDOW, Kernel
from gpu_model import FLOAT, H100, Gpu, Work, eager, in_a_graph, on_device, product_rate, product_seconds

PAGE = Path(__file__).parents[1] / "docs" / "gpu.md"
LEVELS, LABS = 3, 10
GATES = 4 * HIDDEN + 2 * LEVELS
INNER = 4 * WIDTH  # of the Transformer's feed-forward part
# Operations of a call around the kernels and products: counted on a GPU that holds no numbers, with two features.
SMALL = {"StageNet": 38, "Transformer": 92, "MLP": 34}
BOTH = 2  # streams


@dataclass(frozen=True)
class Sizes:
    """A batch.

    Attributes:
        batch: samples.
        steps: of each feature, padded.
        slots: tokens of a step; 0 for values.
    """

    batch: int
    steps: tuple[int, ...]
    slots: tuple[int, ...]

    @property
    def bytes_moved(self) -> int:
        """Of a sample to the GPU, and of its contributions back."""
        numbers = sum(steps * (slots or LABS) for steps, slots in zip(self.steps, self.slots, strict=True))
        tokens = sum(steps * slots for steps, slots in zip(self.steps, self.slots, strict=True))
        return 2 * FLOAT * numbers + FLOAT * tokens  # tokens come as int64


def kernel(op: str) -> Kernel:
    """A row of the table of kernels."""
    return next(each for each in KERNELS if each.op == op)


def _kernel_work(gpu: Gpu, op: str, elements: float, times: int = 1) -> Work:
    return Work(op, times, kernel(op).seconds(gpu)[0] * elements, triton=True)


def _product(gpu: Gpu, what: str, rows: int, inner: int, columns: int, times: int = 1) -> Work:
    return Work(what, times, product_seconds(gpu, rows, inner, columns), products=2 * rows * inner * columns)


def _embedded(gpu: Gpu, rows: int, slots: int) -> list[Work]:
    """Tokens to rows in both streams, and contributions back."""
    gathered = rows * (slots * 8 + WIDTH * FLOAT)  # the table stays in the cache
    return [
        Work("embeddings", BOTH, gathered / gpu.bandwidth),
        _kernel_work(gpu, "token_contributions", rows * slots),
    ]


def stagenet(gpu: Gpu, sizes: Sizes) -> list[Work]:
    """Features in lockstep; after a feature's last step the others go on without it."""
    work = [Work("small operations", SMALL["StageNet"], 0.0), _kernel_work(gpu, "convergence", sizes.batch)]
    batch, total, of_all = sizes.batch, sizes.batch * sum(sizes.steps), sizes.batch * len(sizes.steps)
    for steps, slots in zip(sizes.steps, sizes.slots, strict=True):
        rows, columns = batch * steps, 1 + (WIDTH if slots else LABS)
        work += _embedded(gpu, rows, slots) if slots else [Work("values", 4, rows * LABS * 3 * FLOAT / gpu.bandwidth)]
        work += [
            _product(gpu, "inputs to gates", BOTH * rows, columns, GATES),
            _product(gpu, "gates to inputs", rows, GATES, columns - 1),
        ]
    falling = [*sorted(sizes.steps, reverse=True), 0]
    for going in range(1, len(falling)):
        steps, rows = falling[going - 1] - falling[going], batch * going
        first = going == len(sizes.steps)  # step: all have it, and it has no states
        work += [
            _product(gpu, "states to gates", BOTH * rows, HIDDEN, GATES, steps - first),
            _kernel_work(gpu, "lockstep", rows * HIDDEN, steps),
            _kernel_work(gpu, "lockstep_backward", rows * HIDDEN, steps),
            _product(gpu, "gates to states", rows, GATES, HIDDEN, steps - first),
        ]
    return [
        *work,
        _kernel_work(gpu, "stage_window", BOTH * of_all * WINDOW * HIDDEN),
        _kernel_work(gpu, "stage_window_backward", of_all * WINDOW * HIDDEN),
        Work("multipliers of states, cleared", 1, FLOAT * total * HIDDEN / gpu.bandwidth),
        _product(gpu, "convolution", BOTH * of_all, WINDOW * HIDDEN, HIDDEN),
        _kernel_work(gpu, "gated_sum", of_all * HIDDEN),
        _product(gpu, "convolution, back", of_all, HIDDEN, WINDOW * HIDDEN),
        _product(gpu, "theme", of_all, HIDDEN, HIDDEN // 6, 3 * BOTH),
    ]


def transformer(gpu: Gpu, sizes: Sizes) -> list[Work]:
    """One layer, of which row 0 is kept."""
    work = [Work("small operations", SMALL["Transformer"], 0.0), _kernel_work(gpu, "convergence", sizes.batch)]
    for steps, slots in zip(sizes.steps, sizes.slots, strict=True):
        batch, rows = sizes.batch, sizes.batch * steps
        norm = BOTH * 2 * FLOAT * rows * WIDTH / gpu.bandwidth
        work += [
            *_embedded(gpu, rows, slots),
            Work("layer norm of every row", BOTH, norm / BOTH),
            _product(gpu, "queries, folded, and output", BOTH * batch, WIDTH, WIDTH, 4),
            _kernel_work(gpu, "attention", rows, BOTH),
            _product(gpu, "feed-forward", BOTH * batch, WIDTH, INNER, 2),
            _kernel_work(gpu, "gelu", batch * INNER),
            _product(gpu, "feed-forward, back", batch, WIDTH, INNER, 2),
            _product(gpu, "queries and output, back", batch, WIDTH, WIDTH, 4),
            _kernel_work(gpu, "attention_backward", rows),
            _kernel_work(gpu, "layer_norm_backward", rows * WIDTH),
            _kernel_work(gpu, "layer_norm_backward", batch * WIDTH),
        ]
    return work


def mlp(gpu: Gpu, sizes: Sizes) -> list[Work]:
    """Two layers over the mean of the embeddings."""
    work = [Work("small operations", SMALL["MLP"], 0.0), _kernel_work(gpu, "convergence", sizes.batch)]
    for steps in sizes.steps:
        batch = sizes.batch
        work += [
            *_embedded(gpu, batch, steps),
            _product(gpu, "layers", BOTH * batch, WIDTH, WIDTH, 2),
            _kernel_work(gpu, "secant", batch * WIDTH, 1),
            _product(gpu, "layers, back", batch, WIDTH, WIDTH, 2),
        ]
    return work


VISITS, CODES = 8, 25  # of a cohort's batches of like length; codes padded to the visit that has the most
SEQUENCES = ((20, 10), (1, 1))
PREDICTED = {
    "StageNet": (stagenet, (VISITS, 64), (CODES, 0), (128, 1024, 4096)),
    "Transformer, 1 layer": (transformer, *SEQUENCES, (128, 1024, 4096)),
    "MLP": (mlp, *SEQUENCES, (256, 4096, 65536)),
}


def predictions(gpu: Gpu) -> list[tuple[str, int, dict[str, float]]]:
    """Model, batch, and seconds on the device, of a call, of one in a graph, and of the copies to and from the host."""
    found = []
    for name, (model, steps, slots, batches) in PREDICTED.items():
        for batch in batches:
            sizes = Sizes(batch, steps, slots)
            work = model(gpu, sizes)
            times = {
                "device": on_device(gpu, work),
                "eager": eager(gpu, work),
                "graph": in_a_graph(gpu, work),
                "copies": batch * sizes.bytes_moved / gpu.host,
            }
            found.append((name, batch, times))
    return found


def _shown(value: float, digits: int = 2) -> str:
    """A prediction has no more digits than that."""
    return f"{float(f'{value:.{digits}g}'):,.10g}"


def _table(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    return "\n".join("| " + " | ".join(row) + " |" for row in (header, ("---",) * len(header), *rows))


def kernels_table(gpu: Gpu) -> str:
    """Of every kernel: what an element costs, and what decides."""
    rows = []
    for each in KERNELS:
        seconds, decides = each.seconds(gpu)
        counts = tuple(_shown(value, 3) for value in (each.read, each.written, each.flops))
        rows.append((f"`{each.op}`", each.element, *counts, _shown(1 / seconds / 1e9), decides, each.launches))
    header = ("op", "element", "read, B", "written, B", "flops", "10⁹ elements/s at best", "bound by", "launches")
    return _table(header, rows)


def products_table(gpu: Gpu) -> str:
    """Rates of the products of StageNet's steps."""
    rows = []
    for batch in PREDICTED["StageNet"][3]:
        shapes = ((BOTH * batch, HIDDEN, GATES), (batch, GATES, HIDDEN))
        cells = []
        for shape in shapes:
            rate, seconds = product_rate(gpu, *shape), product_seconds(gpu, *shape)
            cells.append(f"{_shown(rate / 1e12)} TFLOP/s, {_shown(1e6 * seconds)} µs")
        rows.append((str(batch), *cells))
    return _table(("batch", f"forward, [2·batch, {HIDDEN}] @ [{HIDDEN}, {GATES}]", "backward"), rows)


def models_table(gpu: Gpu) -> str:
    """Samples/s."""
    rows = []
    for name, batch, times in predictions(gpu):
        rates = [_shown(batch / seconds) for seconds in (times["eager"], times["graph"], times["copies"])]
        rows.append((name, f"{batch:,}", _shown(1e3 * times["device"]), *rates))
    header = ("model", "batch", "GPU, ms", "samples/s", "samples/s, graphs", "copies to and from the host, samples/s")
    return _table(header, rows)


TABLES = {"kernels": kernels_table, "products": products_table, "models": models_table}


def with_tables(page: str, gpu: Gpu) -> str:
    """The page with its tables as they are computed now."""
    for name, table in TABLES.items():
        before, start, rest = page.partition(f"<!-- {name}:start -->\n")
        _, end, after = rest.partition(f"<!-- {name}:end -->")
        if not (start and end):
            raise ValueError(f"the page lacks <!-- {name}:start --> … <!-- {name}:end -->")
        page = f"{before}{start}{table(gpu)}\n{end}{after}"
    return page


if __name__ == "__main__":
    PAGE.write_text(with_tables(PAGE.read_text(), H100))
