"""The fan-out: plan, sampler actors, ledger, coordinator, certificates."""
