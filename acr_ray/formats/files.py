"""Names of the files and folders that runs leave, relative to the folder of the run."""

from __future__ import annotations

# Every run.
RUN = "run.json"  # whose folder it is, and what decides its results
SUMMARY = "summary.json"

# Training.
CHECKPOINT = "checkpoint"  # the trained model
BEST_CHECKPOINT = "best"  # the best one of the run, if it is another
MODEL_WEIGHTS = "model.safetensors"  # in either
MODEL_CARD = "model.json"
METRICS = "metrics.jsonl"  # one record an epoch
STATE = "state"  # checkpoints to resume from
PROFILE = "profile"
P_A = "p_a"  # estimates for training samples
CONTROL = "control.json"  # the control channel's: the run's state,
EVENTS = "notes.jsonl"  # its events,
PROBLEM = "problem.json"  # and why its workers stopped
RAY_TRAIN = "ray"  # Ray Train's own

# Certification.
LEDGER = "ledger"
PLAN = "plan.json"
PLAN_IMAGES = "images.parquet"
INT8 = "int8.safetensors"  # the network of a run in int8
CERTIFICATES = "certificates.parquet"
CERTIFICATES_TSV = "certificates.tsv"

# Search.
TRIALS_TABLE = "trials.parquet"
BEST_RECIPE = "best.json"
TRIALS = "trials"  # a report and a model for each trial
TRIAL_PROGRESS = "trial.json"  # in a trial's checkpoint
VALIDATION = "validation.json"  # in a trial's folder
TRUNKS = "trunks"
TRUNK = "trunk.json"  # in a trunk's folder
TRACKED = "tracked.json"  # what MLflow has of the search
SEARCH_BEGUN = "trials.begun"  # left by the driver, so that trials know the folder when they see it
TUNE = "tune"  # Ray Tune's own
TUNE_BASELINE = "tune-baseline"
TUNE_TRAIN = "train"  # Ray Train's own, of trials with several workers

# Report.
PAGE = "report.html"
TABLE_MARKDOWN, TABLE_LATEX, TABLE_CSV, TABLE_TEXT = "table.md", "table.tex", "table.csv", "table.txt"
CLASSES_CSV, BEST_CSV = "classes.csv", "best_per_radius.csv"
