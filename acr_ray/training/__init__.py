"""Training: one loop, methods as objects, the attack, discard and reweigh, and the Ray Train worker."""
