"""The remedies, one file for each slot or kind."""
