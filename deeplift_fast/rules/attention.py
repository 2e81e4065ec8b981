"""Attention written out in scores, mask, softmax and values."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def scaled_dot_product_attention(
    query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, dropout_p: float = 0.0,
    is_causal: bool = False, scale: float | None = None, enable_gqa: bool = False,
) -> Tensor:  # fmt: skip
    """Scores, mask, softmax, values."""
    if enable_gqa:
        key = key.repeat_interleave(query.shape[-3] // key.shape[-3], -3)
        value = value.repeat_interleave(query.shape[-3] // value.shape[-3], -3)
    factor = query.shape[-1] ** -0.5 if scale is None else scale
    scores = torch.matmul(query * factor, key.transpose(-2, -1))
    if is_causal:
        attn_mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
    if attn_mask is not None:
        masked = attn_mask.dtype == torch.bool
        scores = scores.masked_fill(~attn_mask, -torch.inf) if masked else scores + attn_mask
    weights = torch.softmax(scores, -1)
    if dropout_p > 0:
        weights = F.dropout(weights, dropout_p)
    return torch.matmul(weights, value)


def multi_head_attention_forward(
    query: Tensor, key: Tensor, value: Tensor, embed_dim_to_check: int, num_heads: int, in_proj_weight: Tensor | None,
    in_proj_bias: Tensor | None, bias_k: Tensor | None, bias_v: Tensor | None, add_zero_attn: bool, dropout_p: float,
    out_proj_weight: Tensor, out_proj_bias: Tensor | None, training: bool = True,
    key_padding_mask: Tensor | None = None, need_weights: bool = True, attn_mask: Tensor | None = None,
    use_separate_proj_weight: bool = False, q_proj_weight: Tensor | None = None, k_proj_weight: Tensor | None = None,
    v_proj_weight: Tensor | None = None, static_k: Tensor | None = None, static_v: Tensor | None = None,
    average_attn_weights: bool = True, is_causal: bool = False,
) -> tuple[Tensor, Tensor | None]:  # fmt: skip
    """`torch.nn.functional.multi_head_attention_forward`, `[length, batch, width]` or `[length, width]`."""
    batched = query.dim() == 3
    if not batched:
        query, key, value = query.unsqueeze(1), key.unsqueeze(1), value.unsqueeze(1)
        key_padding_mask = None if key_padding_mask is None else key_padding_mask.unsqueeze(0)
    length, batch, width = query.shape
    one = query is key and key is value and in_proj_weight is not None and not use_separate_proj_weight
    extra = 0
    if one and bias_k is None:
        joint = F.linear(query, in_proj_weight, in_proj_bias)  # type: ignore[arg-type]
        q, k, v = joint.reshape(length, batch, 3, num_heads, -1).permute(2, 1, 3, 0, 4).unbind()
    else:
        separate = use_separate_proj_weight or in_proj_weight is None
        weights: Any = (q_proj_weight, k_proj_weight, v_proj_weight) if separate else in_proj_weight.chunk(3)  # type: ignore
        biases = (None, None, None) if in_proj_bias is None else in_proj_bias.chunk(3)
        q, k, v = (F.linear(x, w, b) for x, w, b in zip((query, key, value), weights, biases, strict=True))
        if bias_k is not None and bias_v is not None:
            k = torch.cat([k, bias_k.repeat(1, batch, 1)])
            v = torch.cat([v, bias_v.repeat(1, batch, 1)])
            extra += 1
        q, k, v = (t.reshape(t.shape[0], batch, num_heads, -1).permute(1, 2, 0, 3) for t in (q, k, v))
    k, v = k if static_k is None else static_k.reshape(k.shape), v if static_v is None else static_v.reshape(v.shape)
    if add_zero_attn:
        k, v = F.pad(k, (0, 0, 0, 1)), F.pad(v, (0, 0, 0, 1))
        extra += 1
    scores = torch.matmul(q * q.shape[-1] ** -0.5, k.transpose(-2, -1))
    if attn_mask is not None:
        mask = attn_mask if attn_mask.dim() == 2 else attn_mask.reshape(batch, num_heads, *attn_mask.shape[-2:])
        scores = _masked(scores, mask, extra)
    if key_padding_mask is not None:
        scores = _masked(scores, key_padding_mask.reshape(batch, 1, 1, -1), extra)
    attention = torch.softmax(scores, -1)
    if training and dropout_p > 0:
        attention = F.dropout(attention, dropout_p)
    mixed = torch.matmul(attention, v).permute(2, 0, 1, 3).reshape(length, batch, width)
    output = F.linear(mixed, out_proj_weight, out_proj_bias)
    shown = (attention.mean(1) if average_attn_weights else attention) if need_weights else None
    if not batched:
        output = output.squeeze(1)
        shown = None if shown is None else shown.squeeze(0)
    return output, shown


def _masked(scores: Tensor, mask: Tensor, extra: int) -> Tensor:
    """Boolean masks forbid, others add; the `extra` keys at the end are always allowed."""
    mask = F.pad(mask, (0, extra)) if extra else mask
    return scores.masked_fill(mask, -torch.inf) if mask.dtype == torch.bool else scores + mask
