"""Many runs from one file: planned as a whole, run by workers, gathered in a table and figures."""
