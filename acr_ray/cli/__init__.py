"""The commands: what ``acr-ray NAME`` and ``python -m jobs.NAME`` run, and what Python programs may call.

For example::

    from acr_ray.cli.commands import certify, train
    from acr_ray.cli.session import RunOptions
    from acr_ray.settings import load_recipe

    trained = train.run(load_recipe("digits"), RunOptions("runs/digits"))
    certified = certify.run(trained.checkpoint, RunOptions("certified/digits"), settings={"n": 10_000})
    print(certified.summary["acr"])
"""
