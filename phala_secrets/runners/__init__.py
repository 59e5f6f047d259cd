"""Where a run happens. Each CI has a room of its own; `base`, a shell, is under them all."""
