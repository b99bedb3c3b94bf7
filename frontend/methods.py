"""The Tensor methods that are functions of the frontend with the tensor as their first argument."""

from __future__ import annotations

from frontend import (
    arithmetic,
    bounds,
    counting,
    drawing,
    einsum,
    gathering,
    indexing,
    masking,
    ordering,
    quantiles,
    rearranging,
    reducing,
    running,
)
from frontend.absent import Absent


class TensorMethods(Absent):
    """One line a method: ``name = module.function``."""

    # parts
    narrow = rearranging.narrow
    select = rearranging.select
    split = rearranging.split
    chunk = rearranging.chunk
    tensor_split = rearranging.tensor_split
    unbind = rearranging.unbind
    unfold = rearranging.unfold

    # arithmetic
    add = arithmetic.add
    sub = subtract = arithmetic.sub
    div = divide = true_divide = arithmetic.div
    round = arithmetic.round
    addcmul = arithmetic.addcmul
    addcdiv = arithmetic.addcdiv
    float_power = arithmetic.float_power
    heaviside = arithmetic.heaviside
    isneginf = arithmetic.isneginf
    isposinf = arithmetic.isposinf
    logit = arithmetic.logit
    positive = arithmetic.positive
    sinc = arithmetic.sinc

    # repeating and turning round
    repeat = rearranging.repeat
    tile = rearranging.tile
    repeat_interleave = rearranging.repeat_interleave
    flip = rearranging.flip
    fliplr = rearranging.fliplr
    flipud = rearranging.flipud
    rot90 = rearranging.rot90
    roll = rearranging.roll
    movedim = rearranging.movedim
    moveaxis = rearranging.movedim
    swapaxes = swapdims = rearranging.swapaxes
    diff = rearranging.diff
    hsplit = rearranging.hsplit
    vsplit = rearranging.vsplit
    dsplit = rearranging.dsplit
    ravel = rearranging.ravel
    broadcast_to = rearranging.broadcast_to

    # triangles and diagonals
    tril = rearranging.tril
    triu = rearranging.triu
    diagonal = rearranging.diagonal
    diag = rearranging.diag
    diag_embed = rearranging.diag_embed
    diagflat = rearranging.diagflat
    trace = rearranging.trace

    # products
    mm = einsum.mm
    bmm = einsum.bmm
    mv = einsum.mv
    dot = vdot = einsum.dot
    inner = einsum.inner
    outer = ger = einsum.outer
    kron = einsum.kron
    cross = einsum.cross
    addmv = einsum.addmv
    addr = einsum.addr
    addbmm = einsum.addbmm
    addmm = einsum.addmm
    baddbmm = einsum.baddbmm

    # reductions
    sum = reducing.sum
    mean = reducing.mean
    prod = reducing.prod
    any = reducing.any
    all = reducing.all
    amax = reducing.amax
    amin = reducing.amin
    argmax = reducing.argmax
    argmin = reducing.argmin
    var = reducing.var
    std = reducing.std
    logsumexp = reducing.logsumexp
    norm = reducing.norm
    dist = reducing.dist
    aminmax = reducing.aminmax
    count_nonzero = reducing.count_nonzero
    nansum = reducing.nansum
    nanmean = reducing.nanmean
    nan_to_num = bounds.nan_to_num
    clamp = bounds.clamp
    clip = bounds.clamp
    clamp_min = bounds.clamp_min
    clamp_max = bounds.clamp_max
    equal = bounds.equal
    isclose = bounds.isclose
    allclose = bounds.allclose

    # elements by index
    gather = gathering.gather
    take_along_dim = gathering.take_along_dim
    index_select = gathering.index_select
    take = gathering.take
    scatter = gathering.scatter
    scatter_add = gathering.scatter_add
    scatter_reduce = gathering.scatter_reduce
    index_add = gathering.index_add
    index_copy = gathering.index_copy
    index_fill = gathering.index_fill
    index_put = gathering.index_put
    index_reduce = gathering.index_reduce
    slice_scatter = indexing.slice_scatter
    select_scatter = indexing.select_scatter
    masked_fill = masking.masked_fill
    masked_select = masking.masked_select
    masked_scatter = masking.masked_scatter
    nonzero = masking.nonzero
    argwhere = masking.argwhere

    # order
    sort = ordering.sort
    argsort = ordering.argsort
    msort = ordering.msort
    topk = ordering.topk
    kthvalue = quantiles.kthvalue
    median = quantiles.median
    nanmedian = quantiles.nanmedian
    quantile = quantiles.quantile
    nanquantile = quantiles.nanquantile
    cumsum = running.cumsum
    cumprod = running.cumprod
    cummax = running.cummax
    cummin = running.cummin
    logcumsumexp = running.logcumsumexp
    bincount = counting.bincount
    histc = counting.histc

    # chance
    bernoulli = drawing.bernoulli
    multinomial = drawing.multinomial
