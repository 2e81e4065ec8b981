"""Contributions of codes and labs to the predicted risk of a small StageNet, with PyHealth's DeepLift replaced."""

import torch
from pyhealth.datasets import create_sample_dataset, get_dataloader
from pyhealth.models import StageNet

from deeplift_fast import DeepLift, baselines  # was: from pyhealth.interpret.methods import DeepLift

SAMPLES = [
    {
        "patient_id": "patient-0",
        "codes": ([0.0, 24.0], [["I50.9", "N17.9"], ["A41.9"]]),
        "labs": ([0.0, 6.0, 12.0], [[138.0, 4.1], [135.0, 4.6], [131.0, 5.2]]),
        "mortality": 1,
    },
    {
        "patient_id": "patient-1",
        "codes": ([0.0], [["I10", "E78.5", "Z79.4"]]),
        "labs": ([0.0, 8.0], [[140.0, 4.0], [141.0, 3.9]]),
        "mortality": 0,
    },
]


def main() -> None:
    """Attributes both patients with an untrained model."""
    torch.manual_seed(0)
    dataset = create_sample_dataset(
        SAMPLES, {"codes": "stagenet", "labs": "stagenet_tensor"}, {"mortality": "binary"}, dataset_name="example"
    )
    batch = next(iter(get_dataloader(dataset, batch_size=2, shuffle=False)))
    model = StageNet(dataset, embedding_dim=16, chunk_size=16, levels=2)

    usual = baselines.typical(dataset)  # removes codes, and puts each laboratory value at its median over patients
    print(usual)
    deeplift = DeepLift(model, rules="complete", baseline=usual)
    attributions, delta = deeplift.attribute(**batch, return_convergence_delta=True)

    vocabulary = {index: code for code, index in dataset.input_processors["codes"].code_vocab.items()}
    tokens, scores = batch["codes"][1], attributions["codes"]
    for patient, visit, slot in (tokens > 1).nonzero().tolist():
        code = vocabulary[int(tokens[patient, visit, slot])]
        print(f"patient {patient} visit {visit}: {code:<6} {scores[patient, visit, slot]:+.5f}")
    print("convergence delta:", delta.tolist())


if __name__ == "__main__":
    main()
