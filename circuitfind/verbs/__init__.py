"""Commands as functions, one file each: from settings to a directory of results."""
