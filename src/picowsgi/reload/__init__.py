"""The reload: new processes load the application again when one of its files changes."""
