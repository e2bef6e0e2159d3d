"""The cases, one in each module: what it measures, its arguments, and how it is run."""
