"""The program `zfs`: its commands, the pools, the datasets with their snapshots, and which of them are meant."""
