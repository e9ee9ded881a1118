"""How fast brewlens is, beside what one would use instead and beside what the machine can do.

    python -m benchmarks                  # on the processor, about ten minutes
    python -m benchmarks --device cuda    # random weights in the shape of a 7B model
    python -m benchmarks --quick          # toy sizes: whether it runs; its numbers mean nothing

Every comparison is on the same work, timed in turns in one process, and its results are compared. What was
asked for stands beside what was measured; a target that is missed is said to be missed.
"""
