"""The interactive report: one HTML file that holds a run's data and all that shows it."""
