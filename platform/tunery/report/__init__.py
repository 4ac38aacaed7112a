"""What a run looks like: its states made into tables, lines and documents. Everything here is a pure function.

words.py     how a number, a time, a status or a draw is written
live.py      a run under way: the live table, and lines for where there is no terminal
result.py    how a run ended, for people and for programs
trials.py    the trials of a run, best first
"""
