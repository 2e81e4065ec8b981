"""The result of an attribution."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from torch import Tensor

from deeplift_fast.core import frames, sums
from deeplift_fast.core.diagnostics import Report
from deeplift_fast.core.html import page_of
from deeplift_fast.core.shap_values import explanation

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, eq=False)  # == of tensors is no bool, so a result equals itself alone
class Attribution:
    """The contributions of a batch, and the outputs that they explain.

    Attributes:
        contributions: in the structure, shapes and dtypes of the inputs, in units of the output.
        convergence_delta: `[batch]`, `Σ contributions − (f(x) − f(x0))` *before* any rescaling.
        output: `[batch]`, `f(x)` at the target.
        baseline_output: `[batch]`, `f(x0)` at the target.
        target: int64 `[batch]`, or `[batch, k]` for outputs of more than two dimensions; `None` if the target is a
            callable or the output has no class dimension.
        report: each operation met, with its rule, its count and its part of the convergence delta; also the
            cancellation. Under `"rescale"` and `"pyhealth"` operations without a rule share one row.
        baseline: a description of the baseline.
        multipliers: in the structure of the inputs; their mean over several steps. `None` if they are not kept.
        source: the PyHealth model and the batch, which `DeepLift.explain` keeps for the names in tables and figures;
            `None` for other models. A pickle does not hold it.
    """

    contributions: Any
    convergence_delta: Tensor
    output: Tensor
    baseline_output: Tensor
    target: Tensor | None
    report: Report = field(default_factory=lambda: Report((), 0.0))
    baseline: str = ""
    multipliers: Any = field(default=None, repr=False)
    source: tuple[Any, Mapping[str, Any]] | None = field(default=None, repr=False)

    def to_dataframe(
        self,
        model: Any = None,
        batch: Mapping[str, Any] | None = None,
        dimensions: Mapping[str, Sequence[str]] | None = None,
    ) -> "pd.DataFrame":
        """Every real token and value with its name, time, value and contribution.

        Args:
            model: the PyHealth model explained; `None` for the one that `source` holds.
            batch: the batch explained; `None` for the one that `source` holds.
            dimensions: by feature key, the names of a continuous feature's dimensions; PyHealth keeps none.

        Returns:
            A pandas data frame with the columns of a cohort's table `attributions`
            (:mod:`deeplift_fast.cohort.tables`); `sample` counts from 0. Without a model and a batch, of contributions
            of plain tensors: one row per element, `code` is its place, and `value` is null.

        Raises:
            ImportError: if pandas is missing, or pyarrow or PyHealth for a batch of PyHealth's.
            ValueError: if only one of model and batch is given, or the batch is not the one explained.

        Example:
            >>> from deeplift_fast import DeepLift
            >>> table = DeepLift(model, rules="complete").explain(**batch).to_dataframe()
            >>> list(table["feature"].unique())
            ['codes', 'labs']
        """
        given = self._explained(model, batch)
        return frames.plain(self) if given is None else frames.named(self, *given, dimensions)

    def by(self, what: str, model: Any = None, batch: Mapping[str, Any] | None = None) -> "pd.DataFrame":
        """The sums of the contributions by feature, step or stay.

        Args:
            what: `"feature"`: a row for each sample and feature (of a module: each input). `"step"`: a row for each
                sample, feature and step of its sequence axis. `"stay"`: a row for each sample and stay, over all
                features, in the order of time; contributions without a known stay have one row, with `stay` null.
                Padding has no rows: neither has a feature of which a sample has no token or value.
            model: as for :meth:`to_dataframe`.
            batch: as for :meth:`to_dataframe`.

        Returns:
            A pandas data frame with the columns of :meth:`to_dataframe` that fit: `sample`, `patient_id`, `visit_id`,
            then `feature`; or `feature`, `step`, `time`, `day` and `stay`; or `stay` and `day`, the first day with a
            token or value; and `attribution`, float64, the sum of :meth:`to_dataframe`'s over these rows.

        Raises:
            ImportError: as for :meth:`to_dataframe`.
            ValueError: for another name, `"stay"` without known stays, or `"step"` if no input of a module has a
                sequence axis, `[batch, steps, …, values]`; also as for :meth:`to_dataframe`.

        Example:
            >>> from deeplift_fast import attribute
            >>> found = attribute(torch.nn.Flatten(), torch.ones(2, 3, 4), target=0, rules="complete")
            >>> found.by("step")["attribution"].tolist()
            [1.0, 0.0, 0.0, 1.0, 0.0, 0.0]
        """
        return sums.by(self, what, self._explained(model, batch))

    def _explained(self, model: Any, batch: Mapping[str, Any] | None) -> tuple[Any, Mapping[str, Any]] | None:
        """The model and batch given, or else those that were explained; `None` for plain tensors."""
        if (model is None) != (batch is None):
            raise ValueError("model and batch belong together: give both, or neither for those that were explained")
        return self.source if model is None or batch is None else (model, batch)

    def top(
        self, count: int = 10, sample: int = 0, dimensions: Mapping[str, Sequence[str]] | None = None
    ) -> "pd.DataFrame":
        """The tokens and values of a sample that moved its output most.

        Args:
            count: the number of rows.
            sample: the place of the sample in the batch.
            dimensions: as for :meth:`to_dataframe`.

        Returns:
            Rows of :meth:`to_dataframe`, the largest |attribution| first, without the columns that are empty in all of
            them (of `patient_id`, `visit_id`, `time`, `day`, `stay`, `measured` and `value`).

        Raises:
            ImportError: as for :meth:`to_dataframe`.
            ValueError: if `count` is below 1, or there is no such sample.

        Example:
            >>> from deeplift_fast import DeepLift
            >>> found = DeepLift(model, rules="complete").explain(**batch)
            >>> len(found.top(3, sample=1))
            3
        """
        return frames.top(self, count, sample, dimensions)

    def to_shap(self) -> Any:
        """The contributions as a `shap.Explanation`, one column per code or dimension, one row per sample.

        Returns:
            A `shap.Explanation`: `values` `[batch, columns]` are sums of contributions, `base_values` `[batch]` the
            outputs at the baseline, `data` `[batch, columns]` the newest value, or the count of a code.

        Raises:
            ImportError: if shap is missing, or what :meth:`to_dataframe` needs.

        Example:
            >>> from deeplift_fast import DeepLift
            >>> explanation = DeepLift(model, rules="complete").explain(**batch).to_shap()
            >>> explanation.base_values.shape
            (12,)
        """
        return explanation(self)

    def _repr_html_(self) -> str:
        return page_of(self)

    def __getstate__(self) -> dict[str, Any]:
        # Who stores an attribution does not expect a model's weights and a patient's identifiers in it.
        return {**vars(self), "source": None}
