# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # From hospital tables to a patient's page
#
# A StageNet predicts whether a patient dies at the next hospital stay. This tutorial trains one and
# asks which diagnoses and laboratory values moved its prediction. You need
# `pip install "deeplift_fast[demo,plot]" ipywidgets`; PyHealth needs the latter in notebooks. It takes about
# a minute on two cores. Run its cells in a notebook. In a script, put them below
# `if __name__ == "__main__":`, because PyHealth starts processes that import the script again.
#
# The tables are synthetic and have the layout of MIMIC-IV. With access to MIMIC-IV, give its folder
# in place of `hospital` below; the rest stays the same.

# %%
import logging
import os
import tempfile
import warnings
from pathlib import Path

os.environ["LITDATA_DISABLE_VERSION_CHECK"] = "1"
os.environ["TQDM_DISABLE"] = "1"
os.environ["TORCH_CPP_LOG_LEVEL"] = "ERROR"  # a memory profiler logs a line
logging.disable(logging.INFO)  # PyHealth logs each step
warnings.filterwarnings("ignore", category=SyntaxWarning)
warnings.filterwarnings("ignore", message=".*does not have mask information")  # PyHealth's StageNet, in each batch

from deeplift_fast.demo.hospital import write_hospital

folder = Path(tempfile.mkdtemp())
hospital = folder / "hospital"
write_hospital(hospital, patients=200, seed=0)
sorted(path.relative_to(hospital).as_posix() for path in hospital.rglob("*.csv.gz"))

# %% [markdown]
# ## Samples
#
# PyHealth reads the tables and makes one sample per patient. `MortalityWithStaysMIMIC4` is PyHealth's
# task with the day and the stay of each step beside it. Those reach the tables and the page; the
# model does not see them.

# %% tags=["quiet"]
from pyhealth.datasets import MIMIC4Dataset, get_dataloader, split_by_patient

from deeplift_fast.tasks import MortalityWithStaysMIMIC4

tables = ["diagnoses_icd", "procedures_icd", "labevents"]
ehr = MIMIC4Dataset(ehr_root=str(hospital), ehr_tables=tables, cache_dir=str(folder / "cache"))
dataset = ehr.set_task(MortalityWithStaysMIMIC4())

# %%
sample = dataset[0]
print(len(dataset), "samples; the fields of one:", ", ".join(sample))

# %% [markdown]
# ## A model
#
# PyHealth's `Trainer` trains a small StageNet. Nothing here belongs to deeplift_fast.

# %% tags=["quiet"]
import torch
from pyhealth.models import StageNet
from pyhealth.trainer import Trainer

torch.manual_seed(0)
train, _, test = split_by_patient(dataset, [0.8, 0.0, 0.2], seed=0)
model = StageNet(dataset, embedding_dim=32, chunk_size=16, levels=3)
trainer = Trainer(model, metrics=["roc_auc"], device="cpu", enable_logging=False)
trainer.train(get_dataloader(train, batch_size=32, shuffle=True), epochs=3)
scores = trainer.evaluate(get_dataloader(test, batch_size=32))

# %%
print({name: round(float(value), 2) for name, value in scores.items()})

# %% [markdown]
# ## One batch
#
# DeepLIFT compares a prediction with the prediction for a **baseline**. `typical` takes every code
# away and puts each laboratory value at its median. The contributions of a patient sum to
# `output − baseline_output`, in logits.

# %%
from deeplift_fast import DeepLift, baselines

labs = {"labs": MortalityWithStaysMIMIC4.LAB_CATEGORY_NAMES}
usual = baselines.typical(train, dimensions=labs)
deeplift = DeepLift(model, rules="complete", baseline=usual)

batch = next(iter(get_dataloader(test, batch_size=8)))
found = deeplift.explain(**batch)
total = sum(each.flatten(1).sum(1) for each in found.contributions.values())
print("sum of contributions      ", [round(v, 4) for v in total.tolist()])
print("output − baseline output  ", [round(v, 4) for v in (found.output - found.baseline_output).tolist()])

# %% [markdown]
# PyHealth's StageNet reads a batch's padded steps as real ones, so its own logits depend on the batch.
# deeplift_fast explains each patient alone, and a `PredictionWarning` names the difference.
#
# `top` lists the strongest contributions of a sample. PyHealth keeps no names of laboratory values, so
# `dimensions` gives them.

# %%
found.top(5, dimensions=labs)

# %% [markdown]
# ## The whole cohort
#
# `attribute_cohort` writes two Parquet tables, part by part. A killed run goes on with the same call.

# %%
from deeplift_fast.cohort import attribute_cohort

run = attribute_cohort(deeplift, dataset, folder / "mortality", dimensions=labs, progress="none")
print(f"{run.samples} samples, {run.failures} failures, {run.samples / run.seconds:.0f} per second")

# %%
import pandas as pd

rows = pd.read_parquet(folder / "mortality" / "attributions")
rows.sort_values("attribution", key=abs, ascending=False).head(5)

# %% [markdown]
# `summarise` has the mean contribution of each code, with a 95 % interval over patients. Codes of fewer
# than 10 samples are left out: their means are noise.

# %%
from deeplift_fast.report import summarise

summary = summarise(folder / "mortality")
columns = ["code", "description", "samples", "mean", "low", "high"]
summary.top("code", "overall", "all", count=5, sort="mean_abs", min_samples=10)[columns]

# %% [markdown]
# ## A patient over time
#
# The figure shows the patient with the highest risk. Orange raises the predicted risk, purple lowers
# it. Each column is a stay.

# %%
from deeplift_fast import plot
from deeplift_fast.report.titles import Titles

samples = pd.read_parquet(folder / "mortality" / "samples")
riskiest = int(samples.sort_values("probability")["sample"].iloc[-1])
ax = plot.timeline(folder / "mortality", sample=riskiest, titles=Titles(hospital), top=10, width=8)

# %% [markdown]
# ## The patient's page
#
# The page is one HTML file for a clinician: the prediction, the strongest reasons, the timeline and
# the limits of the method. It holds patient data, so it belongs to its owner alone.

# %%
from deeplift_fast.report import patient_page

page = patient_page(folder / "mortality", sample=riskiest, mimic_root=hospital)
(folder / "patient.html").write_text(page)
print(f"{len(page) // 1000} kB")

# %% [markdown]
# Open `patient.html` in a browser. On the command line the same page comes from
# `deeplift-fast report mortality --sample 3 --out patient.html`.
#
# Next: [baselines](../rules.md#baselines), [cohorts](../cohorts.md), [pages](../pages.md).
