"""Where trials run. Each engine takes a trial from the study to its value."""
