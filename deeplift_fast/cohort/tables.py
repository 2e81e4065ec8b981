"""The columns of a cohort's two tables.

`samples`, one row per sample:

    sample             int64       number of the sample in the dataset, counted from 0
    patient_id         dictionary  as the batch names it
    visit_id           dictionary  the batch's visit_id, or else its hadm_id, admission_id or record_id; null where
                                   samples have none
    target             int64       index of the logit explained
    output             float32     that logit at the input
    baseline_output    float32     that logit at the baseline
    probability        float32     predicted probability of the target; null for regression
    label              float32     true label (multilabel: whether the target applies); null where there is none
    convergence_delta  float32     sum of the contributions minus (output − baseline_output), before any rescaling

`attributions`, one row per real token or value; padding never appears. Rows come sample by sample, and within a sample
feature by feature:

    sample             int64       as in `samples`
    patient_id         dictionary  as in `samples`
    visit_id           dictionary  as in `samples`
    feature            dictionary  key of the feature
    step               int32       place on the sequence axis: visit, event or time step; 0 for a feature without one;
                                   where values are nested deeper, row-major over all axes but the last
    slot               int32       place within the step: in the visit's list of codes, or the dimension of the
                                   vector; 0 where a step holds a single value
    code               dictionary  text of the token, or name of the dimension (of a multi-hot feature the category's);
                                   null where neither is known
    time               float32     time of the step as the model is given it; null for a feature without times
    value              float32     the value; null for tokens, and where nothing was measured
    attribution        float32     contribution to the target logit, in units of the logit

Dictionaries hold strings.

Tokens other than 0, steps that are not all 0, and measured values, be they 0, are real
(`deeplift_fast.pyhealth.features.Feature.real`, `deeplift_fast.features.measured`). A gap that a processor filled
(forward, or with a constant) counts as real, since the model is given it.

The files' metadata name the baseline (`deeplift_fast.baseline`) and the rule set (`deeplift_fast.rules`).
"""

import pyarrow as pa

BASELINE, RULES = "deeplift_fast.baseline", "deeplift_fast.rules"
"""Keys of the files' metadata."""

_TEXT = pa.dictionary(pa.int32(), pa.string())

SAMPLES = pa.schema(
    {
        "sample": pa.int64(),
        "patient_id": _TEXT,
        "visit_id": _TEXT,
        "target": pa.int64(),
        "output": pa.float32(),
        "baseline_output": pa.float32(),
        "probability": pa.float32(),
        "label": pa.float32(),
        "convergence_delta": pa.float32(),
    }
)
ATTRIBUTIONS = pa.schema(
    {
        "sample": pa.int64(),
        "patient_id": _TEXT,
        "visit_id": _TEXT,
        "feature": _TEXT,
        "step": pa.int32(),
        "slot": pa.int32(),
        "code": _TEXT,
        "time": pa.float32(),
        "value": pa.float32(),
        "attribution": pa.float32(),
    }
)
