"""The cases, one in a module: what it measures, its arguments, and how it is run."""
