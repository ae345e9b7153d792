"""Where bytes live: blob files in a directory or objects in a bucket, and getting them out again."""
