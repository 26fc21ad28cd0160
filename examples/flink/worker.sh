#!/bin/sh
# Starts a worker of Beam for Flink's --environment_type PROCESS, with the Python that has this project installed:
# the first `python` on the task manager's PATH, or $PYTHON.
for argument in "$@"; do
    case $argument in
        --id=*) WORKER_ID=${argument#*=} ;;
        --logging_endpoint=*) LOGGING_API_SERVICE_DESCRIPTOR="url: \"${argument#*=}\"" ;;
        --control_endpoint=*) CONTROL_API_SERVICE_DESCRIPTOR="url: \"${argument#*=}\"" ;;
    esac
done
export WORKER_ID LOGGING_API_SERVICE_DESCRIPTOR CONTROL_API_SERVICE_DESCRIPTOR
exec "${PYTHON:-python}" -m apache_beam.runners.worker.sdk_worker_main
