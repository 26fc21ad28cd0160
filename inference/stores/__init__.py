"""Files of stores such as Cloud Storage and S3, through Beam's file systems: made ready, asked, errors in words."""
