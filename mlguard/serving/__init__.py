"""The server: Clipper's predict contract ahead of FastAPI, models walled off or without code.

One file, one idea::

    inputs         JSON body → rows, or a 400 that names the field
    batching       which rows run next, how many at once (pure; the clock is passed in)
    replica        what a batch is handed to: the contract of the two kinds below
    own_process    one process that a model runs in, seen from here
    replicas       how many of them, and what replaces the one that ends
    replica_child  that process itself
    inprocess      a model without code, beside the event loop
    model_runner   a predictor fed with rows, in either place
    answers        what a model said → JSON; why an answer is the default one
    given          the label, score and doubt of it that a caller gets
    query_ids      ids that name their version
    recorder       rows on their way to the prediction log, off the answer's path
    logged_rows    whose they are, and what is known of them, as columns
    counting       the same rows counted, for drift
    log_carrier    the process that brings the log to a bucket
    admission      a request that waits, its reply
    served_version one version: its reader, queue, replica, deadlines
    trying         whether a loaded one answers, asked past its queue
    engine         one app: versions, route, replies
    replying       an answered request → its reply, and what is logged of it
    routing        which version answers, which ones see it as well (pure)
    mirroring      rows shown to a version that does not answer them
    tally          counting, by the batch
    cache          answers to rows that were asked before (pure)
    row_cache      the requests that share them
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
    protocol       the predict route where the bytes come in
    quick_path     when that is allowed, and how its answers look
    connections    HTTP/1.1 with those limits, errors in JSON and answers in order
    known_heads    heads of requests that were read before
    exchanges      the answers of one connection, in order
    embedded       one version behind real HTTP
    front          one front-end process
    listening      the socket, and who holds a taken port
    uvicorn_server uvicorn on that socket, its signals left to us
    ahead          a front end that imports while the settings are read
    supervisor     socket, front ends, watcher
"""
