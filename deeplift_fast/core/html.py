"""An attribution as a notebook shows it: outputs of the first samples, and the largest contributions of the first."""

import html
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from deeplift_fast.core.frames import base_of, largest
from deeplift_fast.support.printable import printable

if TYPE_CHECKING:
    from deeplift_fast.core.result import Attribution

SAMPLES = 5
"""Samples whose outputs are shown."""

LONGEST = 80
"""Characters of a name that are shown."""


def page_of(found: "Attribution") -> str:
    """A fragment of HTML: tables of text, every name escaped, nothing loaded or run."""
    size = len(found.output)
    outputs, bases = found.output.tolist(), base_of(found).tolist()
    missed = found.convergence_delta
    deltas = (missed.mean(0) if missed.dim() > 1 else missed).tolist()
    rows = [
        (str(n), _number(outputs[n]), _number(bases[n]), _signed(outputs[n] - bases[n]), _number(deltas[n]))
        for n in range(min(size, SAMPLES))
    ]
    head = ("sample", "output", "output at the baseline", "difference", "convergence delta")
    more = f", {size - SAMPLES:,} more not shown" if size > SAMPLES else ""
    about = f"Attribution of {size:,} sample(s){more}; compared with: {_shown(found.baseline or 'unknown')}"
    return f"<p>{about}</p>{_table(head, rows)}{_largest(found) if size else ''}"


def _largest(found: "Attribution") -> str:
    try:
        table = largest(found, 10, 0)
    except ImportError as error:
        return f"<p>{_shown(error)}</p>"
    head = ("feature", "code", "step", "time", "value", "contribution")
    rows = []
    for row in table.itertuples():
        code = f"dimension {row.slot}" if not isinstance(row.code, str) else row.code
        numbers = ("" if each is None or each != each else _number(each) for each in (row.time, row.value))
        rows.append((row.feature, code, str(row.step), *numbers, _signed(row.attribution)))
    return f"<p>Sample 0, the {len(rows)} largest contributions</p>{_table(head, rows)}"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    body = "".join("<tr>" + "".join(f"<td>{_shown(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return "<table><tr>" + "".join(f"<th>{_shown(cell)}</th>" for cell in head) + f"</tr>{body}</table>"


def _shown(text: object) -> str:
    whole = printable(text)
    return html.escape(whole if len(whole) <= LONGEST else whole[: LONGEST - 1] + "…")


def _number(number: float) -> str:
    return f"{number:.4g}".replace("-", "−")


def _signed(number: float) -> str:
    mark = "▲ " if number > 0 else "▼ " if number < 0 else ""
    return f"{mark}{number:+.3g}".replace("-", "−")
