"""Feed-forward queues: who waits how long where routing alone decides, for many candidates at once.

`reference` is the plain loop; `exact` the same in compiled float64; `lanes` the fast path, in float32 and summarised.
"""
