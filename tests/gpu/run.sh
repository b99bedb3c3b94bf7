#!/usr/bin/env bash
# On a machine with an NVIDIA GPU: versions, the conformance of every PTX intrinsic, all tests that need a GPU, the same
# under compute-sanitizer, and the benchmark beside PyTorch; all of it into one report.
#   tests/gpu/run.sh [REPORT]
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
report=${1:-gpu-report.txt}

step() {
    printf '\n$ %s\n' "$*"
    "$@" || echo "FAILED: $*"
}

sanitized() {
    if ! command -v compute-sanitizer >/dev/null; then
        printf '\ncompute-sanitizer is not on the PATH: memory, races and barriers were not checked\n'
        return
    fi
    for tool in memcheck racecheck synccheck; do
        step compute-sanitizer --tool "$tool" --error-exitcode 1 --target-processes all \
            python -m pytest -q -m gpu tests/gpu/test_conformance.py tests/gpu/test_programs.py
    done
}

everything() {
    step python -m benchmarks.gpu_versions
    step python -m pytest -q -m gpu tests/gpu/test_conformance.py
    step python -m pytest -q -m gpu tests/gpu --ignore tests/gpu/test_conformance.py
    sanitized
    step python -m benchmarks --target cuda --out "${report%.*}-benchmark"
}

python -m benchmarks.gpu_versions >/dev/null || exit 2  # it says why
everything 2>&1 | tee "$report"
grep -q '^FAILED:\|were not checked$' "$report" && { echo "see $report"; exit 1; }
echo "all passed; see $report"
