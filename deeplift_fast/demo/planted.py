"""The planted causes of death of the synthetic hospital."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Planted:
    """A logistic model of death.

    Attributes:
        codes: ICD-10-CM code to its weight; the term is 1 where an earlier stay carries the code.
        labs: Lab category to its weight; the term is the level at the last stay, in standard deviations.
        interactions: Pairs of the above and the weight of the product of their terms.
        intercept: The constant term.
    """

    codes: dict[str, float]
    labs: dict[str, float]
    interactions: dict[tuple[str, str], float]
    intercept: float

    def weight(self, name: str) -> float:
        """Average weight of a code or lab category: its own and those of its pairs with a code; 0.0 if not planted.

        A lab level is 0 on average, so pairs with a lab add nothing.
        """
        alone = self.codes.get(name, 0.0) + self.labs.get(name, 0.0)
        pairs = (w for pair, w in self.interactions.items() if name in pair and not set(pair) & set(self.labs))
        return alone + sum(pairs)


PLANTED = Planted(
    codes={
        "C787": 2.3,
        "E43": 1.7,
        "E785": -1.3,
        "I469": 2.2,
        "I5023": 1.7,
        "J9601": 1.8,
        "K7290": 2.3,
        "N186": 1.7,
        "R64": 1.9,
        "R6521": 2.1,
        "Z515": 2.4,
        "Z7982": -1.5,
    },
    labs={"Anion Gap": 1.1, "Potassium": 0.8, "Sodium": -0.8},
    interactions={("I4891", "N1830"): 2.0, ("K7290", "Sodium"): -0.8, ("Anion Gap", "Potassium"): 0.5},
    intercept=-4.1,
)
