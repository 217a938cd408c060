"""How a Ray cluster comes up."""
