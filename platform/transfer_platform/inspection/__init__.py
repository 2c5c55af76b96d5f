"""Dataset inspection: invalid files, duplicates, label errors and outliers."""
