"""Projects, and what they allow to be in them: limits and restrictions."""
