"""What is stored, as the daemon knows it: summaries, chains, and what checks have found."""
