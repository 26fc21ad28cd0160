"""Where predictions go; the first line of each module states its delivery guarantee."""
