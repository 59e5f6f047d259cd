"""What the user gives, up to a Job."""
