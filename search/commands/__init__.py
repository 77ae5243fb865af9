"""One module a sub-command: ``parser()`` and ``run(options, arguments) -> exit code``."""
