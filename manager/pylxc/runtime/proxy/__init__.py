"""The process of a proxy device: listens on one side of a container's border and connects on the other."""
