"""`make bench`: DESIGN's operations on pylxc and on LXD 5.0.2, in turn, on one machine, in one run."""
