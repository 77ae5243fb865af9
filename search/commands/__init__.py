"""The sub-commands, one module each: ``parser()``, ``run(options, arguments) -> exit code``, and the page it prints."""
