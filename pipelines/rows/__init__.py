"""Says where rows come from, and how they travel between the steps of a flow."""
