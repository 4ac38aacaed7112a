"""Models behind HTTP, on Ray Serve: several adapters on one base in one replica.

messages.py  what goes in and out, as the OpenAPI page has it
replica.py   the models of one base, asked in batches
front.py     the HTTP routes, the token, the metrics
server.py    starts it all, and follows promotions
"""
