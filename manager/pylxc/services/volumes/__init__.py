"""Custom volumes: those that users make, and instances mount."""
