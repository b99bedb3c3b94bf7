"""Makes ``golden/pytorch.npz``, what PyTorch says to the cases of ``oracle_cases``: ``python tests/make_golden.py``.

Run it again only when a case changes; the same versions on the same kind of processor give the same bytes.
"""

from __future__ import annotations

import numpy as np
import pytorch_oracle
import torch
from oracle_cases import CASES, GOLDEN, MODELS


def main() -> None:
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    found = {f"outputs of {name}": pytorch_oracle.outputs(name) for name in MODELS}
    found |= {f"losses of {name}": pytorch_oracle.train(case)[0] for name, case in CASES.items()}
    found["torch"] = np.array(torch.__version__)
    GOLDEN.parent.mkdir(exist_ok=True)
    np.savez_compressed(GOLDEN, **found)
    for name, case in CASES.items():
        first, last = found[f"losses of {name}"][[0, -1]]
        print(f"{name} {dict(case.options)}: from {first:.4f} to {last:.4f}")
    print(f"{GOLDEN.stat().st_size} bytes in {GOLDEN}")


if __name__ == "__main__":
    main()
