"""What the servers serve; this folder is on their path, so each module stands alone."""
