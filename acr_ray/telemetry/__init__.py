"""What runs tell those who watch a cluster: metrics beside Ray's own, and log lines that name the run."""
