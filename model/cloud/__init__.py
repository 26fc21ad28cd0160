"""TODO model/cloud."""
