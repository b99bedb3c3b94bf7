"""Tenon: a graph-compiling deep learning engine. ``import tenon as tn``.

A model is traced once into a static graph; gradients, fusion, a schedule and a memory plan follow, and every kernel
is compiled to machine code through Numba. Each stage can be printed, run and dumped.
"""

import typing as _typing

from tenon import _packages

_packages.check()

from engine import settings as _settings

_settings.check_environment()

from engine.dtypes import DType, bf16, f16, f32, f64, i8, i32, i64, u8
from engine.dtypes import bool_ as bool
from engine.errors import (
    BoundsError,
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
from engine.settings import config
from frontend import functional as F
from frontend import models, nn, optim
from frontend.arithmetic import (
    add,
    addcdiv,
    addcmul,
    div,
    divide,
    float_power,
    heaviside,
    isneginf,
    isposinf,
    logit,
    positive,
    round,
    sinc,
    sub,
    subtract,
    true_divide,
)
from frontend.bounds import allclose, clamp, clamp_max, clamp_min, equal, isclose, nan_to_num
from frontend.bounds import clamp as clip
from frontend.counting import bincount, histc
from frontend.creation import (
    arange,
    empty,
    empty_like,
    eye,
    full,
    full_like,
    linspace,
    logspace,
    ones,
    ones_like,
    tensor,
    tril_indices,
    triu_indices,
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
from frontend.einsum import (
    addbmm,
    addmm,
    addmv,
    addr,
    baddbmm,
    bmm,
    cross,
    dot,
    einsum,
    inner,
    kron,
    mm,
    mv,
    outer,
    tensordot,
)
from frontend.einsum import dot as vdot
from frontend.einsum import outer as ger
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
from frontend.indexing import select_scatter, slice_scatter
from frontend.masking import argwhere, masked_fill, masked_scatter, masked_select, nonzero
from frontend.ordering import argsort, bucketize, msort, searchsorted, sort, topk
from frontend.quantiles import kthvalue, median, nanmedian, nanquantile, quantile
from frontend.random import seed
from frontend.rearranging import (
    atleast_1d,
    atleast_2d,
    atleast_3d,
    block_diag,
    broadcast_tensors,
    broadcast_to,
    cartesian_prod,
    chunk,
    column_stack,
    diag,
    diag_embed,
    diagflat,
    diagonal,
    dsplit,
    dstack,
    flip,
    fliplr,
    flipud,
    hsplit,
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
    swapaxes,
    tensor_split,
    tile,
    trace,
    tril,
    triu,
    unbind,
    vsplit,
    vstack,
)
from frontend.rearranging import movedim as moveaxis
from frontend.rearranging import swapaxes as swapdims
from frontend.rearranging import vstack as row_stack
from frontend.reducing import (
    all,
    amax,
    amin,
    aminmax,
    any,
    argmax,
    argmin,
    cdist,
    count_nonzero,
    dist,
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
from frontend.shaping import concat, flatten, matmul, permute, reshape, squeeze, stack, transpose, unflatten, unsqueeze
from frontend.shaping import concat as cat
from frontend.shaping import concat as concatenate
from frontend.tensor import Tensor, as_tensor
from frontend.tensor import as_tensor as from_numpy
from tenon import cache
from tenon.beam_search import Hypothesis, beam_search
from tenon.checkpoints import load, save
from tenon.compiling import compile
from tenon.custom import custom_op
from tenon.exactness import get_float32_matmul_precision, set_float32_matmul_precision
from tenon.executable import Executable
from tenon.functions import Function, function, train_step
from tenon.gradients import grad, value_and_grad
from tenon.inspection.counting import flops, memory
from tenon.machine import Device, devices
from tenon.specs import TensorSpec, spec
from tenon.threads import get_num_threads, set_num_threads

if _typing.TYPE_CHECKING:
    from tenon._tools import *

__version__ = "0.1.0"

float16, float32, float64, bfloat16 = f16, f32, f64, bf16
int8, int32, int64, uint8 = i8, i32, i64, u8


def __getattr__(name: str) -> object:
    import sys

    import tenon._tools as tools  # not "from tenon": that would ask this function

    if name in tools.__all__:
        found = globals()[name] = getattr(tools, name)
        return found

    from frontend.absent import FUNCTIONS
    from frontend.absent import explain as error

    raise error(name, sys.modules[__name__], FUNCTIONS)


def __dir__() -> list[str]:
    import tenon._tools as tools

    return sorted({*globals(), *tools.__all__})
