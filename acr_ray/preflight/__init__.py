"""Whether a cluster can do the work: asked before it begins, answered with what to do."""
