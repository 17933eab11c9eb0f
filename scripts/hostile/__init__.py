"""The corpus of hostile files: builders and the rows of refusals that they are cases of."""
