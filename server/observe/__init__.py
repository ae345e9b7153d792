"""Every metric name, unit and label in one table; the log format."""
