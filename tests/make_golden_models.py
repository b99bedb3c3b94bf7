"""Makes ``golden/gpt2`` and ``golden/bert``: checkpoint folders as Hugging Face's transformers writes them, of small
models with random weights, and ``expected.npz``, what these models say: ``python tests/make_golden_models.py``."""

from __future__ import annotations

import numpy as np
import torch
from pretrained_cases import GOLDEN, KINDS, inputs, outputs, peer


def main() -> None:
    torch.set_num_threads(1)
    for kind in KINDS:
        folder = GOLDEN / kind
        model = peer(kind)
        model.save_pretrained(folder)
        (folder / "generation_config.json").unlink(missing_ok=True)
        np.savez_compressed(folder / "expected.npz", **outputs(kind, model, inputs(kind)))


if __name__ == "__main__":
    main()
