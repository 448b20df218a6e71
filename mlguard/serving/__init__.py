"""The server: Clipper's predict contract over FastAPI, models in processes of their own.

One file, one idea::

    inputs         JSON body → rows, or a 400 that names the field
    batching       which rows run next, how many at once (pure; the clock is passed in)
    replica_child  the process a model runs in          replicas   starting, limiting, replacing it
    answers        what a model said → JSON, explanations of default answers
    query_ids      ids that name their version          recorder   prediction log, off the answer's path
    engine         one app: versions, route, deadlines  feedback   labels, durable before the 200
    sync           what the registry says → the engine  metrics    Prometheus figures
    predict_app    the FastAPI routes                   embedded   one version behind real HTTP
    front          one front-end process                supervisor socket, front ends, watcher
"""
