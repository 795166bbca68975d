"""What Portico talks about: commands, outputs, events, models and the policies between them.

Standard library only; no clock, no threads, no I/O.
"""
