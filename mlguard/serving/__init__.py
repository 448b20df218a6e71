"""The server: Clipper's predict contract over FastAPI, models in processes of their own.

One file, one idea::

    inputs         JSON body → rows, or a 400 that names the field
    batching       which rows run next, how many at once (pure; the clock is passed in)
    replica_child  the process a model runs in
    replicas       starting, limiting, replacing those processes
    answers        what a model said → JSON; why an answer is the default one
    query_ids      ids that name their version
    recorder       rows on their way to the prediction log, off the answer's path
    engine         one app: versions, route, deadlines
    feedback       labels, durable before the 200
    recall         which query a uid's row was
    sync           what the registry says → the engines
    metrics        figures for Prometheus
    predict_app    the FastAPI routes
    v2             Open Inference Protocol v2, as a translation to Clipper's form
    v2_tensors     its bodies ↔ tensors (pure)
    v2_rows        its tensors ↔ rows and answers (pure)
    row_check      rows unlike the data a version was accepted on (pure)
    replies        JSON replies and errors
    access_log     a line of JSON for each request
    access         who may read and change through /api, and the keys of apps
    limits         how much one caller and one connection may cost (pure; clocks passed in)
    connections    HTTP/1.1 with those limits, errors in JSON and answers in order
    embedded       one version behind real HTTP
    front          one front-end process
    listening      the socket, and who holds a taken port
    supervisor     socket, front ends, watcher
"""
