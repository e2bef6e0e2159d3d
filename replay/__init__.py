"""The second try of dead letters: where their bytes still are, and what is sent for them.

Shared by the commands and by the task that the console asks for; it belongs to neither, and writes nothing.
"""
