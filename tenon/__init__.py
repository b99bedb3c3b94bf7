"""Tenon: a graph-compiling deep learning engine. ``import tenon as tn``.

A model is traced once into a static graph; gradients, fusion, a schedule and a memory plan follow, and every kernel
is compiled to machine code through Numba. Each stage can be printed, run and dumped.
"""

from tenon import _packages

_packages.check()

from engine.dtypes import DType, bf16, f16, f32, f64, i8, i32, i64, u8
from engine.dtypes import bool_ as bool
from engine.errors import (
    CacheError,
    CompileError,
    DTypeError,
    IndexRangeError,
    ShapeError,
    StateError,
    TenonError,
    TextError,
    TraceError,
    UnsupportedError,
    VerifyError,
)
from frontend import functional as F
from frontend import nn, optim
from frontend.bounds import allclose, clamp, isclose, nan_to_num
from frontend.bounds import clamp as clip
from frontend.counting import bincount, histc
from frontend.creation import (
    arange,
    eye,
    full,
    full_like,
    linspace,
    ones,
    ones_like,
    tensor,
    zeros,
    zeros_like,
)
from frontend.drawing import (
    bernoulli,
    multinomial,
    normal,
    rand,
    rand_like,
    randint,
    randn,
    randn_like,
    randperm,
    uniform,
)
from frontend.einsum import addmm, baddbmm, bmm, dot, einsum, mm, mv, outer, tensordot
from frontend.elementwise import *
from frontend.functional import log_softmax, softmax
from frontend.gathering import (
    gather,
    index_add,
    index_copy,
    index_fill,
    index_put,
    index_reduce,
    index_select,
    scatter,
    scatter_add,
    scatter_reduce,
    take,
    take_along_axis,
    take_along_dim,
)
from frontend.masking import argwhere, masked_fill, masked_scatter, masked_select, nonzero
from frontend.ordering import argsort, bucketize, msort, searchsorted, sort, topk
from frontend.quantiles import kthvalue, median, nanmedian, nanquantile, quantile
from frontend.random import seed
from frontend.rearranging import (
    atleast_1d,
    atleast_2d,
    broadcast_to,
    chunk,
    diag,
    diag_embed,
    diagonal,
    flip,
    fliplr,
    flipud,
    hstack,
    meshgrid,
    movedim,
    narrow,
    ravel,
    repeat_interleave,
    roll,
    rot90,
    select,
    split,
    tensor_split,
    tile,
    trace,
    tril,
    triu,
    unbind,
    vstack,
)
from frontend.reducing import (
    all,
    amax,
    amin,
    any,
    argmax,
    argmin,
    count_nonzero,
    logsumexp,
    max,
    mean,
    min,
    nanmean,
    nansum,
    norm,
    prod,
    std,
    std_mean,
    sum,
    var,
    var_mean,
)
from frontend.running import cummax, cummin, cumprod, cumsum, logcumsumexp
from frontend.shaping import concat, flatten, matmul, permute, reshape, squeeze, stack, transpose, unsqueeze
from frontend.shaping import concat as cat
from frontend.tensor import Tensor
from tenon import cache, callbacks, data, metrics
from tenon.callbacks import Callback, History
from tenon.checkpoints import load, save
from tenon.compiling import compile
from tenon.custom import custom_op
from tenon.executable import Executable
from tenon.functions import Function, function, train_step
from tenon.gradients import grad, value_and_grad
from tenon.machine import Device, devices
from tenon.specs import TensorSpec, spec
from tenon.summary import Summary, summary
from tenon.threads import get_num_threads, set_num_threads
from tenon.trainer import Trainer

__version__ = "0.1.0"

float16, float32, float64, bfloat16 = f16, f32, f64, bf16
int8, int32, int64, uint8 = i8, i32, i64, u8


def __getattr__(name: str) -> object:
    import sys

    from frontend.absent import FUNCTIONS, explain

    raise explain(name, sys.modules[__name__], FUNCTIONS)
