"""The detectors, one symptom a file."""
