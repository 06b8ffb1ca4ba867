"""How far the numbers of one image may lie apart, stated once. All are differences of one pass's raw score.

On one provider, in one precision, on one machine: not at all. The same image gets the same bits alone, in a batch,
twice and after a restart, because seeds, masks and batch shapes are fixed.
"""

OTHER_MACHINE = 5e-3  # the golden examples on another machine's kernels or another float32 provider
REDUCED = 1e-2  # the golden examples in bfloat16 or float16; a package that does not bear it is run in float32
