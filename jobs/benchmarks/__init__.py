"""What `jobs.bench` measures: ratios within one run, with their spread."""
