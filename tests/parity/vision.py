"""Vision: cases in which Tenon and PyTorch do the same."""

from __future__ import annotations

from typing import Any

import numpy as np

from parity import Case, ModuleCase, integers, normal, uniform
from tenon import F, nn

SIGNAL, IMAGE, VOLUME = normal(2, 3, 7), normal(2, 3, 5, 6), normal(2, 2, 3, 4, 5)


def same(name: str, *arrays: np.ndarray, label: str = "", **options: Any) -> Case:
    """``F.name(*arrays, **options)`` on both sides."""
    own = {k: options.pop(k) for k in ("compiled", "batched", "grads", "dtypes") if k in options}
    what = ", ".join(filter(None, [label, *(f"{k}={v}" for k, v in options.items())]))
    return Case(
        f"{name}/{what}",
        lambda *x: getattr(F, name)(*x, **options),
        lambda t, *x: getattr(t.nn.functional, name)(*x, **options),
        arrays,
        **own,
    )


def layer(name: str, *args: Any, x: np.ndarray, **options: Any) -> ModuleCase:
    own = {k: options.pop(k) for k in ("compiled", "batched") if k in options}
    what = ", ".join([*map(str, args), *(f"{k}={v}" for k, v in options.items())])
    return ModuleCase(
        f"{name}({what})",
        lambda: getattr(nn, name)(*args, **options),
        lambda t: getattr(t.nn, name)(*args, **options),
        (x,),
        **own,
    )


SIZES: dict[int, list[Any]] = {1: [14, 5, 1, 10, 7], 2: [(10, 18), (3, 9), (5, 4), 1], 3: [(6, 8, 5), 2, (4, 3, 7)]}
SCALES: dict[int, list[Any]] = {1: [2, 1.5, 0.5, 2.3], 2: [2, (1.5, 0.7), 0.6], 3: [2, (1.4, 1.0, 0.5)]}


def interpolations() -> list[Case]:
    found = []
    for rank, x in ((1, SIGNAL), (2, IMAGE), (3, VOLUME)):
        smooth = {1: ["linear"], 2: ["bilinear", "bicubic"], 3: ["trilinear"]}[rank]
        for mode in ("nearest", "nearest-exact", "area", *smooth):
            corners = [{"align_corners": a} for a in (False, True)] if mode in smooth else [{}]
            for i, more in enumerate(corners):
                one = rank == 2 and not i
                found += [same("interpolate", x, size=s, mode=mode, **more, compiled=one and s == (3, 9), batched=(0,))
                          for s in SIZES[rank]]  # fmt: skip
                found += [same("interpolate", x, scale_factor=s, mode=mode, **more, compiled=one and s == 2,
                               batched=(0,)) for s in SCALES[rank]]  # fmt: skip
    return [
        *found,
        *(same("interpolate", SIGNAL, scale_factor=1.4, mode=m, recompute_scale_factor=r)
          for m in ("nearest", "linear") for r in (True, False)),
        same("interpolate", IMAGE[:0], label="no examples", scale_factor=2, mode="bilinear"),
        same("interpolate", normal(1, 1, 1, 1), label="size 1", size=(3, 4), mode="bicubic"),
        same("interpolate", normal(1, 2, 31), label="nearest", size=47, mode="nearest"),
        same("interpolate", integers(9, 1, 2, 5).astype(np.uint8), label="bytes", size=8, mode="nearest"),
    ]  # fmt: skip


def samplings() -> list[Case]:
    grid, wide = uniform(-0.95, 0.95, 2, 3, 4, 2), uniform(-3, 3, 2, 3, 4, 2)
    deep = uniform(-1.6, 1.6, 2, 2, 3, 2, 3)
    found = []
    for mode in ("bilinear", "nearest", "bicubic"):
        for padding in ("zeros", "border", "reflection"):
            for align in (False, True):
                options = {"mode": mode, "padding_mode": padding, "align_corners": align}
                found.append(same("grid_sample", IMAGE, wide, **options, batched=(0, 1),
                                  compiled=(mode, padding, align) in (("bilinear", "zeros", False),
                                                                      ("bicubic", "reflection", True))))  # fmt: skip
                if mode != "bicubic":
                    found.append(same("grid_sample", VOLUME, deep, **options, label="volume"))
        found.append(same("grid_sample", IMAGE, grid, label="inside", mode=mode, align_corners=False))
    theta, solid = normal(2, 2, 3), normal(2, 3, 4)
    for align in (False, True):
        found += [
            same("affine_grid", theta, size=(2, 3, 4, 5), align_corners=align, compiled=align),
            same("affine_grid", solid, size=(2, 3, 2, 1, 5), align_corners=align),
        ]
    identity = np.tile(np.eye(2, 3), (2, 1, 1))

    def turned(functions: Any, x: Any, theta: Any) -> Any:
        return functions.grid_sample(x, functions.affine_grid(theta, (2, 3, 5, 6), False), align_corners=False)

    return [
        *found,
        Case("grid_sample/affine_grid", lambda x, m: turned(F, x, m), lambda t, x, m: turned(t.nn.functional, x, m),
             (IMAGE, identity + 0.3 * theta)),
        same("grid_sample", IMAGE[:0], grid[:0], label="no examples", align_corners=False),
        same("grid_sample", normal(2, 1, 1, 1), wide, label="size 1", padding_mode="reflection", align_corners=True),
    ]  # fmt: skip


CASES: list[Case | ModuleCase] = [
    *interpolations(),
    *samplings(),
    *(same("pixel_shuffle", x, upscale_factor=r, compiled=r == 2 and x.ndim == 4, batched=(0,))
      for x, r in ((normal(2, 8, 3, 4), 2), (normal(2, 9, 2, 1), 3), (normal(4, 3, 2), 2), (normal(2, 2, 4, 3, 2), 2))),
    *(same("pixel_unshuffle", x, downscale_factor=r, compiled=r == 2 and x.ndim == 4, batched=(0,))
      for x, r in ((normal(2, 2, 6, 4), 2), (normal(1, 3, 6, 3), 3), (normal(2, 4, 2), 2))),
    *(same("channel_shuffle", x, groups=g, compiled=g == 2, batched=(0,))
      for x, g in ((normal(2, 6, 3), 3), (normal(2, 6, 3, 2), 2))),
    layer("Upsample", None, 2, x=IMAGE, compiled=True, batched=(0,)),
    layer("Upsample", (4, 9), mode="bilinear", align_corners=True, x=IMAGE),
    layer("Upsample", scale_factor=(1.5, 2.0), mode="bicubic", recompute_scale_factor=True, x=IMAGE),
    layer("UpsamplingNearest2d", scale_factor=3, x=IMAGE),
    layer("UpsamplingBilinear2d", (8, 9), x=IMAGE),
    layer("PixelShuffle", 2, x=normal(2, 4, 3, 3)),
    layer("PixelUnshuffle", 2, x=normal(2, 2, 4, 6)),
    layer("ChannelShuffle", 3, x=normal(2, 6, 3, 3)),
]  # fmt: skip
