"""The program `zfs`: its commands, the pools, the datasets with their snapshots, and the selection of datasets."""
