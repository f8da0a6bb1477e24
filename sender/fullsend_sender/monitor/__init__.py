"""`fullsend check`, `status`, `verify` and `prove`: whether a push would work, and the state of the backups."""
