"""What is tried next, and what it shows."""
