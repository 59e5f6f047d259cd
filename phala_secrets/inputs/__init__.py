"""The inputs, up to a Job."""
