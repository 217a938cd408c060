"""One module a command: ``run(…)`` returns a result, ``main(argv)`` reads a command line and calls it."""
