"""Workers, each of which serves an object: processes of this machine, or actors of Ray."""
