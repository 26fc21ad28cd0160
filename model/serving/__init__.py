"""Serves predictions on this machine: the parts of `python -m model.serve`.

options, errors, metrics, faults  plain values and small objects
limits     how much a request may hold
store      versions of a model: found, loaded, replaced
batcher    joins the requests that wait while the model is busy
tensors    JSON values <-> arrays
service    what every protocol does to a request: admit, predict
tf_json, rest_tf, rest_google, rest_kserve, rpc   the protocols
connections, hosts  whom the web application listens to, and for how long
http, app  the web application
"""
