"""What may be changed: trainings, slots, remedies, symptoms."""
