"""Checking what is stored, beside all else."""
