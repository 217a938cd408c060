"""The commands: what ``acr-ray NAME`` and ``python -m jobs.NAME`` run, and what Python programs may call."""
