"""What this host is made of, for GET /1.0/resources: read from /sys and /proc each time. See: LXD doc rest-api."""
