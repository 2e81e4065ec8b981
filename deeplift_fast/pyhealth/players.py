"""Players: the codes of a patient whose joint effect is asked for."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from deeplift_fast.pyhealth.features import Feature
from deeplift_fast.support.integers import as_int

MOST = 64
"""The most players of a patient."""

Vocabularies = Mapping[str, Mapping[str, int]]
"""The index of each code's text, by feature key."""

ACCEPTED = (
    "(feature, code), (feature, code, positions) or a Player, where code is a text of the vocabulary or a token index; "
    "a list of them for all patients, or one such list per patient"
)


@dataclass(frozen=True)
class Player:
    """A code of a patient, with the positions at which it stands.

    Attributes:
        feature: the key of its feature.
        token: its index in the vocabulary.
        code: its text in the vocabulary; `None` without one.
        positions: where it stands, each as an index into the sample's value: `(step,)`, or `(visit, slot)`.
    """

    feature: str
    token: int
    code: str | None
    positions: tuple[tuple[int, ...], ...]


def vocabularies(model: Any, features: Mapping[str, Feature]) -> dict[str, dict[str, int]]:
    """The vocabulary of each token feature.

    Raises:
        ValueError: if no feature holds tokens.
    """
    processors = model.dataset.input_processors
    keys = [key for key, feature in features.items() if feature.is_token]
    if not keys:
        name = type(model).__name__
        raise ValueError(f"interactions are between codes; the features of this {name} hold values: {list(features)}")
    return {key: {str(t): int(i) for t, i in getattr(processors[key], "code_vocab", {}).items()} for key in keys}


@dataclass(frozen=True)
class _Codes:
    """The distinct codes of one feature's samples.

    Attributes:
        sample: the sample of each code, int64 `[codes]`.
        token: its index in the vocabulary, likewise.
        first: its first position, as a number, likewise.
        total: the sum of its contributions, `[codes]`.
        positions: its positions, `[n, dimensions]` each.
    """

    sample: np.ndarray
    token: np.ndarray
    first: np.ndarray
    total: np.ndarray
    positions: list[np.ndarray]

    @staticmethod
    def of(feature: Feature, contributions: Tensor) -> "_Codes":
        """From a feature and its contributions, of the value's shape."""
        real = feature.real().cpu().numpy()
        value = feature.value.cpu().numpy().astype(np.int64)
        places = np.argwhere(real)
        sample, tokens = places[:, 0], value[real]
        size = 1 + int(tokens.max(initial=0))
        kinds, first, kind = np.unique(sample * size + tokens, return_index=True, return_inverse=True)
        total = np.bincount(kind, contributions.cpu().double().numpy()[real], len(kinds))
        by_kind = np.argsort(kind, kind="stable")
        ends = np.bincount(kind, minlength=len(kinds)).cumsum()
        positions = np.split(places[by_kind, 1:], ends[:-1]) if len(kinds) else []
        return _Codes(kinds // size, kinds % size, first, total, positions)


def strongest(
    features: Mapping[str, Feature], contributions: Mapping[str, Tensor], texts: Vocabularies, top: int
) -> list[list[Player]]:
    """The codes of each patient with the largest |contribution|, each summed over all positions of the code.

    Args:
        features: the batch; token features have codes.
        contributions: by feature key, of the values' shapes.
        texts: the vocabularies.
        top: the most codes of a patient.

    Returns:
        One list per patient, the largest first; among equal ones the order is that of the features and positions.
    """
    keys = [key for key, feature in features.items() if feature.is_token]
    found = [_Codes.of(features[key], contributions[key]) for key in keys]
    names = {key: {index: text for text, index in texts[key].items()} for key in keys}
    which = np.repeat(np.arange(len(keys)), [len(each.sample) for each in found])
    within = np.concatenate([np.arange(len(each.sample)) for each in found])
    sample, first, total = (
        np.concatenate([getattr(each, name) for each in found]) for name in ("sample", "first", "total")
    )
    order = np.lexsort((first, which, -np.abs(total), sample))
    size = next(iter(features.values())).value.shape[0]
    ends = np.bincount(sample, minlength=size).cumsum()
    chosen: list[list[Player]] = []
    for begin, end in zip([0, *ends[:-1]], ends, strict=True):
        chosen.append([])
        for i in order[begin : min(end, begin + top)]:
            key, codes, place = keys[which[i]], found[which[i]], within[i]
            token = int(codes.token[place])
            positions = tuple(map(tuple, codes.positions[place].tolist()))
            chosen[-1].append(Player(key, token, names[key].get(token), positions))
    return chosen


def named(given: Any, features: Mapping[str, Feature], texts: Vocabularies) -> list[list[Player]]:
    """The players that a user names, checked, for each patient in the user's order.

    Args:
        given: see :data:`ACCEPTED`.
        features: the batch.
        texts: the vocabularies.

    Raises:
        ValueError: for an unknown feature, a feature without codes, a code or position that a patient does not have,
            too many players, players that share a position, or another number of lists than of patients.
        TypeError: for any other form.
    """
    size = next(iter(features.values())).value.shape[0]
    reader = _Reader(features, texts)
    return [reader.read(sample, each) for sample, each in enumerate(_by_patient(given, size))]


def _by_patient(given: Any, size: int) -> list[Sequence[Any]]:
    """One list of named players for each of `size` patients."""
    if isinstance(given, list | tuple) and not given and not size:
        return []
    if not isinstance(given, list | tuple) or not given:
        raise TypeError(f"players is {given!r}; accepted: {ACCEPTED}")
    if all(_is_player(each) for each in given):
        if len(given) < 2:
            raise ValueError(f"players names {len(given)} player; accepted: 2 to {MOST}, because a pair needs two")
        return [given] * size
    for each in given:
        if not isinstance(each, list | tuple) or not all(map(_is_player, each)):
            raise TypeError(f"players holds {each!r}; accepted: {ACCEPTED}")
    if len(given) != size:
        raise ValueError(
            f"players has {len(given)} list(s), and the batch {size} patient(s); give one list per patient"
        )
    return list(given)


def _is_player(each: Any) -> bool:
    return isinstance(each, Player) or (isinstance(each, tuple) and len(each) in (2, 3) and isinstance(each[0], str))


class _Reader:
    """Reads the named players of one batch."""

    def __init__(self, features: Mapping[str, Feature], texts: Vocabularies) -> None:
        self._features, self._texts = features, texts
        keys = [key for key, feature in features.items() if feature.is_token]
        self._values = {key: features[key].value.cpu().numpy() for key in keys}
        self._real = {key: features[key].real().cpu().numpy() for key in keys}
        self._names = {key: {index: text for text, index in texts[key].items()} for key in keys}

    def read(self, sample: int, given: Sequence[Any]) -> list[Player]:
        """The players of a patient."""
        if len(given) > MOST:
            raise ValueError(
                f"players names {len(given)} players for patient {sample} of the batch; accepted: up to {MOST}"
            )
        found = [self._player(sample, each) for each in given]
        taken: dict[tuple[str, tuple[int, ...]], Player] = {}
        for player in found:
            for position in player.positions:
                other = taken.setdefault((player.feature, position), player)
                if other is not player:
                    raise ValueError(
                        f"players names position {position} of feature {player.feature!r} twice for patient {sample} "
                        "of the batch; give each position to one player"
                    )
        return found

    def _player(self, sample: int, given: Any) -> Player:
        if isinstance(given, Player):
            self._check_text(given)
            given = (given.feature, given.token, given.positions)
        key, code, *positions = given
        if key not in self._features:
            raise ValueError(f"players names feature {key!r}; accepted: {list(self._values)}")
        if key not in self._values:
            raise ValueError(f"players names feature {key!r}, which holds values; accepted: {list(self._values)}")
        token = self._token(key, code)
        there = self._real[key][sample] & (self._values[key][sample] == token)
        if not there.any():
            raise ValueError(
                f"players names code {code!r} of feature {key!r}, which patient {sample} of the batch does not have"
            )
        places = map(tuple, np.argwhere(there).tolist())
        where = tuple(self._positions(key, sample, positions[0], token) if positions else places)
        return Player(key, token, self._names[key].get(token), where)

    def _check_text(self, given: Player) -> None:
        own = self._names.get(given.feature, {}).get(given.token)
        if given.feature in self._names and given.code != own:
            raise ValueError(
                f"players has a Player of code {given.code!r} with token {given.token} of feature {given.feature!r}, "
                f"which is {own!r} in this model's vocabulary; give (feature, code) with a text for another model"
            )

    def _token(self, key: str, code: Any) -> int:
        if isinstance(code, str):
            if code not in self._texts[key]:
                known = "" if self._texts[key] else ", which has no vocabulary of texts: give the token's index"
                raise ValueError(
                    f"players names code {code!r}, which is not in the vocabulary of feature {key!r}{known}"
                )
            return self._texts[key][code]
        index = as_int(code)
        if index is None:
            raise TypeError(f"players names code {code!r} of feature {key!r}; accepted: a text or a token index")
        return index

    def _positions(self, key: str, sample: int, given: Any, token: int) -> Iterator[tuple[int, ...]]:
        what = f"players names the positions {given!r} of feature {key!r} for patient {sample} of the batch"
        shape = self._values[key].shape[1:]
        form = f"a list of indices into the sample's value, of shape {tuple(shape)}"
        if not isinstance(given, list | tuple) or not given:
            raise TypeError(f"{what}; accepted: {form}")
        seen: set[tuple[int, ...]] = set()
        for each in given:
            position = tuple(map(as_int, each if isinstance(each, list | tuple) else (each,)))
            if len(position) != len(shape) or not all(isinstance(i, int) for i in position):
                raise TypeError(f"{what}; accepted: {form}")
            place = tuple(i for i in position if i is not None)
            if not all(0 <= i < size for i, size in zip(place, shape, strict=True)):
                raise ValueError(f"{what}; {place} lies outside the sample's value, of shape {tuple(shape)}")
            if place in seen:
                raise ValueError(f"{what}; {place} stands there twice")
            seen.add(place)
            if not self._real[key][sample][place]:
                raise ValueError(f"{what}; {place} is padding")
            if self._values[key][sample][place] != token:
                raise ValueError(f"{what}; {place} holds another code than the player's, token {token}")
            yield place


@dataclass(frozen=True)
class Owners:
    """The player at each position of a batch.

    Attributes:
        by_feature: for each token feature int64, of the value's shape: the number of the player, or -1 for none.
        counts: the number of players of each sample, int64 `[batch]`, on the CPU.
    """

    by_feature: Mapping[str, Tensor]
    counts: Tensor

    @staticmethod
    def of(players: Sequence[Sequence[Player]], features: Mapping[str, Feature]) -> "Owners":
        """From the players of each sample."""
        found = {}
        for key, feature in features.items():
            if not feature.is_token:
                continue
            owner = np.full(tuple(feature.value.shape), -1)
            for sample, those in enumerate(players):
                for number, player in enumerate(those):
                    if player.feature == key:
                        owner[sample][tuple(zip(*player.positions, strict=True))] = number
            found[key] = torch.from_numpy(owner).to(feature.value.device)
        return Owners(found, torch.tensor([len(each) for each in players], dtype=torch.int64, device="cpu"))

    @property
    def most(self) -> int:
        """The largest number of players of a sample."""
        return int(self.counts.max()) if len(self.counts) else 0

    def sums(self, contributions: Mapping[str, Tensor], samples: Tensor | slice = slice(None)) -> Tensor:
        """Each player's sum of contributions, `[n, most]`; 0 where a sample has fewer players.

        Args:
            contributions: by feature key, `[n, …]`.
            samples: the sample of each of these rows, int64 `[n]`, or a slice.
        """
        found = []
        for key, owner in self.by_feature.items():
            mine, each = owner[samples], contributions[key]
            total = each.new_zeros(len(each), self.most)
            for i in range(self.most):
                total[:, i] = torch.where(mine == i, each, 0).flatten(1).sum(1)
            found.append(total)
        return torch.stack(found).sum(0)
