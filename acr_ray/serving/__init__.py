"""A smoothed classifier that answers requests. All but `deployment` runs without Ray."""
