"""What every process tells about itself: its lines in the log, its numbers, its heartbeat and its traces.

Light: neither a task nor the database is imported. What is said stands in the parts.
"""
