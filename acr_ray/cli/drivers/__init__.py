"""What the driver of a command does once its options are read: open the run, compute, write, log. Loads torch."""
