"""The regression gate: what every method does on a few embedded clips, compared with a committed baseline.

Hard, on one thread in float32: parameters, token counts, sets of kept tokens and multiply-accumulates are equal, and
logits differ by no more than 1e-4 of the clip's largest one. Time is only ever a ratio to dense, measured beside it.

Another CPU rounds differently, and a selection that was nearly a tie may then fall the other way. Therefore a clip
takes part in a cell's baseline only if nothing changes while the weights are shaken by more than rounding does; the
script benchmarks/check_kernels.py tries the baseline with the kernels of other CPUs.

A cell that the baseline has and the program has not is a failure. One that the baseline has not is named, held to
equal dense where it keeps everything, and passes: a method that was just added has nothing to fall back from.
"""
