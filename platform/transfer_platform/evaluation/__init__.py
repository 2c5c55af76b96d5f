"""What predictions are worth: metrics, figures, and the report for people."""
