"""A store in a bucket of an S3 object store. No command offers it yet."""
