"""`remedy nightly run`, `report` and `schedule`."""
