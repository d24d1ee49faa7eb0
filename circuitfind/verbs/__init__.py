"""What a user asks for, one file each: from settings to a directory of results."""
