"""Files out of stored streams: lists, single files, archives and volumes, without ZFS and without a pool."""
