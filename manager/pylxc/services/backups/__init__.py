"""Backups: what those of instances and of custom volumes have in common."""
