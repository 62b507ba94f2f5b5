"""The objective, from hidden states to loss and gradient in chunks of tokens."""

from dail_runtime.train.loss.fused import LossOutput, fused_loss
from dail_runtime.train.loss.head import Head, LowRank
from dail_runtime.train.loss.prefix import PrefixMask
from dail_runtime.train.loss.rows import TokenFigures
from dail_runtime.train.loss.targets import TopK, columns, teacher_top_k, top_k, with_negative

__all__ = [
    "Head",
    "LossOutput",
    "LowRank",
    "PrefixMask",
    "TokenFigures",
    "TopK",
    "columns",
    "fused_loss",
    "teacher_top_k",
    "top_k",
    "with_negative",
]
