"""Where Optuna looks next."""

from __future__ import annotations

import warnings
from typing import Any

from acr_ray.tuning.space import Domain, Space
from acr_ray.tuning.trial_run import SearchContext


def optuna_search(context: SearchContext, space: Space, trials: int) -> Any:
    """TPE, with the Pareto front in view if there are several objectives; begins with the recipe's own point."""
    import optuna
    from ray.tune.search.optuna import OptunaSearch

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    asked = context.asked
    sampler = optuna.samplers.TPESampler(
        seed=context.seed % 2**32,
        multivariate=True,
        constant_liar=True,  # several trials at once: don't propose one beside a trial that is still running
        # Random points before the model is trusted: ten by Optuna's default, fewer if there are few in all.
        n_startup_trials=max(4, min(10, trials // 3)),
    )
    own = space.own_point(context.recipe)
    several = len(asked) > 1
    return OptunaSearch(
        space={domain.field: _distribution(domain) for domain in space.domains},
        metric=[objective.name for objective in asked] if several else asked[0].name,
        mode=[objective.mode for objective in asked] if several else asked[0].mode,
        sampler=sampler,
        points_to_evaluate=[own] if own else None,
    )


def _distribution(domain: Domain) -> Any:
    from optuna import distributions

    if domain.values:
        return distributions.CategoricalDistribution(domain.values)
    if domain.whole:
        return distributions.IntDistribution(int(domain.low), int(domain.high), log=domain.log)
    return distributions.FloatDistribution(domain.low, domain.high, log=domain.log)
