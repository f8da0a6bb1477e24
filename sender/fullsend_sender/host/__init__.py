"""What this host is and is told: configuration, identity, locks, the log, and how a command runs."""
