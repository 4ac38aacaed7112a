"""Servers that stand in for those of the internet: small, real, and on this machine."""
