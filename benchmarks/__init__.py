"""Honest timings: every engine in its own process, rounds interleaved, medians and ratios round by round."""
