"""The mathematics of randomized smoothing and the sampling engine. No Ray, no MLflow.

Import from the modules: `bounds`, `decide` and `plan` need no torch; `noise`, `engine` and `classifier` do.
"""
