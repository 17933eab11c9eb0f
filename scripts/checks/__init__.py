"""The checks of conformance.py, one subject a file. Each function marked @check is one named check."""
