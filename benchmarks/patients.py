"""Random patients, the same in every run."""

import random


def stagenet(patients: int = 512, steps: int | None = None) -> list[dict]:
    """Patients with 1 to 12 visits of 1 to 25 codes, and 5 to 120 (or `steps`) lab steps of 10 values."""
    draw = random.Random(0)
    samples = []
    for patient in range(patients):
        visits, drawn = draw.randint(1, 12), draw.randint(5, 120)
        codes = [[f"c{draw.randint(0, 2000)}" for _ in range(draw.randint(1, 25))] for _ in range(visits)]
        labs = [[draw.gauss(0, 1) for _ in range(10)] for _ in range(steps or drawn)]
        samples.append(
            {
                "patient_id": f"p{patient}",
                "codes": ([24.0 * visit for visit in range(visits)], codes),
                "labs": ([float(step) for step in range(len(labs))], labs),
                "label": patient % 2,
            }
        )
    return samples


def sequences(patients: int = 256) -> list[dict]:
    """Patients with two code sequences, of up to 40 and up to 20 codes."""
    draw = random.Random(0)
    return [_codes(draw, patient, (1, 40), (1, 20)) for patient in range(patients)]


def long_sequences(patients: int = 256) -> list[dict]:
    """Patients with two code sequences, of 60 and 30 codes."""
    draw = random.Random(0)
    return [_codes(draw, patient, (60, 60), (30, 30)) for patient in range(patients)]


def _codes(draw: random.Random, patient: int, conditions: tuple[int, int], procedures: tuple[int, int]) -> dict:
    """A patient whose two sequences have between a least and a largest number of codes."""
    return {
        "patient_id": f"p{patient}",
        "conditions": [f"c{draw.randint(0, 2000)}" for _ in range(draw.randint(*conditions))],
        "procedures": [f"p{draw.randint(0, 500)}" for _ in range(draw.randint(*procedures))],
        "label": patient % 2,
    }
