"""What a dataset holds, at a glance, as `gancolor data info` shows it."""
