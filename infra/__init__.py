"""Where it runs: settings, storage, command line."""
