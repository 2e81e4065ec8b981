"""The columns of a cohort's tables.

`samples`, one row per sample:

    sample             int64       number of the sample in the dataset, counted from 0
    patient_id         dictionary  the batch's patient_id
    visit_id           dictionary  the batch's visit_id, or else its hadm_id, admission_id or record_id; null if samples
                                   have none
    split              dictionary  the sample's split, such as "train", "validation" or "test"; null if unknown
    target             int64       index of the explained logit
    output             float32     that logit at the input
    baseline_output    float32     that logit at the baseline
    probability        float32     predicted probability of the target; null for regression
    label              float32     true label (multilabel: whether the target applies); null if there is none
    convergence_delta  float32     sum of the contributions minus (output − baseline_output), before any rescaling
    stays              list        the patient's stays, in the given order: label (string) and begin (float32, days from
                                   the patient's first record; null if unknown); null if unknown

`attributions`, one row per real token or value; padding never appears. Rows are ordered by sample, then by feature:

    sample             int64       as in `samples`
    patient_id         dictionary  as in `samples`
    visit_id           dictionary  as in `samples`
    feature            dictionary  key of the feature
    step               int32       place on the sequence axis: visit, event or time step; 0 for a feature without one;
                                   row-major over all axes but the last if values are nested deeper
    slot               int32       place within the step: in the visit's list of codes, or the dimension of the
                                   vector; 0 if a step holds a single value
    code               dictionary  text of the token, or name of the dimension (of the category, for a multi-hot
                                   feature); null if neither is known
    time               float32     time of the step, as the model's input has it; null for a feature without times
    day                float32     days from the patient's first record to the step; null if unknown
    stay               dictionary  label of the stay that the step belongs to; null if unknown
    measured           bool        whether the value was measured at this step; false if it was carried forward or
                                   filled in; null if unknown
    value              float32     the value; null for tokens, and if nothing was measured
    attribution        float32     contribution to the target logit, in units of the logit

`interactions`, of runs that were asked for them: one row per sample and pair of its strongest codes
(`DeepLift.interactions`). A sample with fewer than two codes has none. Rows are ordered by sample, then by the first
and by the second code: by feature in the model's order, then by text. The first code of a pair comes before the second
in this order, so a pair is written in the same way in every sample:

    sample                 int64       as in `samples`
    patient_id             dictionary  as in `samples`
    visit_id               dictionary  as in `samples`
    first_feature          dictionary  key of the first code's feature
    first_code             dictionary  text of the first code's token, as in `attributions`
    second_feature         dictionary  likewise of the second code
    second_code            dictionary
    interaction            float32     change in the target logit that the two make together, beyond the changes that
                                       each makes without the other
    first_contribution     float32     contribution of the first code with all its occurrences
    second_contribution    float32     likewise of the second code
    output_without_first   float32     target logit with the first code at the baseline
    output_without_second  float32     likewise with the second code

Dictionaries hold strings. `split`, `stays`, `day`, `stay` and `measured` are metadata of the samples
(`deeplift_fast.cohort.metadata`); a run may be given the splits instead.

Real are tokens other than 0, steps that are not all 0, and measured values, including a measured 0
(`deeplift_fast.features.Feature.real`, `deeplift_fast.features.measured`). A gap that a processor filled (forward, or
with a constant) counts as real, since it is part of the model's input; where `measured` is false, `value` is null.

`deeplift_fast.cohort.about` describes the files' metadata.
"""

import pyarrow as pa

_TEXT = pa.dictionary(pa.int32(), pa.string())

STAYS = pa.list_(pa.struct({"label": pa.string(), "begin": pa.float32()}))
"""Type of the column `stays`."""

SAMPLES = pa.schema(
    {
        "sample": pa.int64(),
        "patient_id": _TEXT,
        "visit_id": _TEXT,
        "split": _TEXT,
        "target": pa.int64(),
        "output": pa.float32(),
        "baseline_output": pa.float32(),
        "probability": pa.float32(),
        "label": pa.float32(),
        "convergence_delta": pa.float32(),
        "stays": STAYS,
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
        "day": pa.float32(),
        "stay": _TEXT,
        "measured": pa.bool_(),
        "value": pa.float32(),
        "attribution": pa.float32(),
    }
)
INTERACTIONS = pa.schema(
    {
        "sample": pa.int64(),
        "patient_id": _TEXT,
        "visit_id": _TEXT,
        "first_feature": _TEXT,
        "first_code": _TEXT,
        "second_feature": _TEXT,
        "second_code": _TEXT,
        "interaction": pa.float32(),
        "first_contribution": pa.float32(),
        "second_contribution": pa.float32(),
        "output_without_first": pa.float32(),
        "output_without_second": pa.float32(),
    }
)
