"""The result of asking which codes act together."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor

from deeplift_fast.core.frames import NEEDS_PANDAS
from deeplift_fast.pyhealth.players import Player

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = (
    "sample",
    "first_feature",
    "first_code",
    "first_token",
    "second_feature",
    "second_code",
    "second_token",
    "interaction",
    "first_contribution",
    "second_contribution",
    "output",
    "output_without_first",
    "output_without_second",
)


@dataclass(frozen=True, eq=False)  # == of tensors is no bool, so a result equals itself alone
class Interactions:
    """How strongly the codes of each patient act together, in units of the output.

    A positive interaction means that two codes raise the output by more together than one by one.

    Attributes:
        players: the players of each patient: the strongest codes, the largest |contribution| first, or the named ones
            in the order in which they were named.
        values: the interaction of each pair, `[batch, n, n]`, symmetric; n is the largest number of players. NaN on the
            diagonal, and where a patient has fewer players.
        contributions: each player's contribution, summed over its positions, `[batch, n]`; NaN where a patient has
            fewer players, and everywhere if `exact` differences of named players needed no attribution.
        without: the output without each player, `[batch, n]`; NaN where a patient has fewer players.
        output: the output, `[batch]`.
        baseline_output: the output at the baseline, `[batch]`; NaN if nothing was attributed. With several baselines,
            this and everything else is the mean over them.
        target: the explained class of each patient, int64 `[batch]`.
        exact: whether `values` are four-way differences of outputs.
        baseline: a description of the baseline.
    """

    players: list[list[Player]]
    values: Tensor
    contributions: Tensor
    without: Tensor
    output: Tensor
    baseline_output: Tensor
    target: Tensor
    exact: bool
    baseline: str

    def to_dataframe(self) -> "pd.DataFrame":
        """One row per pair of players and patient.

        Returns:
            A pandas data frame: `sample` is the patient's place in the batch. The player that comes first in `players`
            is the first of the pair; `code` is null for a token without a text.

        Raises:
            ImportError: if pandas is missing.

        Example:
            >>> from deeplift_fast import DeepLift
            >>> found = DeepLift(model, rules="complete").interactions(top=2, **batch)
            >>> len(found.to_dataframe())  # one pair for each of 12 patients
            12
        """
        try:
            import pandas as pd
        except ImportError as error:
            raise ImportError(NEEDS_PANDAS) from error
        frame = pd.DataFrame(list(self._rows()), columns=list(COLUMNS))
        whole = dict.fromkeys(("sample", "first_token", "second_token"), "int64")
        return frame.astype(whole | dict.fromkeys(COLUMNS[7:], "float64"))

    def _rows(self) -> Iterator[tuple[Any, ...]]:
        values, contributions, without = (
            each.detach().double().cpu().numpy() for each in (self.values, self.contributions, self.without)
        )
        outputs = self.output.detach().double().cpu().numpy()
        for sample, players in enumerate(self.players):
            for j, second in enumerate(players):
                for i, first in enumerate(players[:j]):
                    yield (
                        sample,
                        *(first.feature, first.code, first.token),
                        *(second.feature, second.code, second.token),
                        values[sample, i, j],
                        *contributions[sample, [i, j]],
                        outputs[sample],
                        *without[sample, [i, j]],
                    )
