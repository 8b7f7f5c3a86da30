"""pylxc: system containers behind LXD's REST dialect."""

__version__ = "0.1.0"
