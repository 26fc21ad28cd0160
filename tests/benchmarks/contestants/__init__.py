"""One module for each contestant; each is run as a process of its own."""
