"""The control channel: what the driver of a training run and its workers tell each other."""
