"""The search over a recipe's hyperparameters: space, trunks that trials fork from, objectives, trials on Ray Tune."""
