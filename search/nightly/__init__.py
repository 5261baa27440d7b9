"""Nightly sweeps: what is run of many trainings each night, what it shows, and the morning report on it."""
