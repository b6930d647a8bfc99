"""What a node lets be seen: log events of one catalogue, metrics, and its state as told to systemd."""
