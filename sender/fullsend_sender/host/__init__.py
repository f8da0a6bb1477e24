"""The host and its settings: configuration, identity, locks, the log, and the event loop of a command."""
