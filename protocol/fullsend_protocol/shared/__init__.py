"""What all other rooms need: errors, exit codes, limits, units, and configuration text to models."""
