"""The scoring server: one PRM on one machine, for terminals elsewhere.

    http.py      requests, limits, the token; a thread a connection
    service.py   the bounded queue, and the one thread that scores, a batch of all that waits at a time
    engine.py    what scores a batch
    tree.py      the packed scorer as an engine, with its cache of problems and programs
    metrics.py   what Prometheus reads

Only tree.py imports torch.
"""
