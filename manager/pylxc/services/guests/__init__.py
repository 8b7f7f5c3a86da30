"""What running instances are told by the host: the guest API at /dev/lxd/sock."""
