"""The daemon's knowledge of what is stored: summaries, chains, and the results of checks."""
