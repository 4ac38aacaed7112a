"""This machine as a small cluster: a database, MLflow's server and Ray, started and ended by `platform up` and `down`.

`cluster` does it; a file a part says how that part is started, asked how it is, and ended.
"""
