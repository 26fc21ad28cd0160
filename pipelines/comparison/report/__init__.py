"""Makes a page for people from what a comparison has found."""
