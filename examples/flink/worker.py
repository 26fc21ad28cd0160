#!/usr/bin/env python
"""Runs a worker of Beam for Flink, in the environment that has this project installed.

A task manager (`--environment_type PROCESS`) or a worker pool (`--container_executable`) starts it with `--id` and
`--provision_endpoint`; there it asks for all else. Told to end, it first publishes the files that a stream has open.

Beam's images have a program for that (`/opt/apache/beam/boot`), which installs packages first; this one needs no image,
and installs nothing. The first `python` on the PATH of what starts it is to be the environment's.
"""

from __future__ import annotations

import argparse
import os
import signal

import grpc
from apache_beam.portability.api import beam_provision_api_pb2, beam_provision_api_pb2_grpc
from apache_beam.runners.worker import sdk_worker_main
from google.protobuf import json_format, text_format

from pipelines.connectors.files import rolling

ANSWERS_WITHIN_S = 60.0


def main() -> None:
    """Asks what to connect to, and runs the worker until its runner lets go of it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--id", required=True)
    parser.add_argument("--provision_endpoint", required=True)
    arguments, _ = parser.parse_known_args()
    with grpc.insecure_channel(arguments.provision_endpoint) as channel:
        service = beam_provision_api_pb2_grpc.ProvisionServiceStub(channel)
        request = beam_provision_api_pb2.GetProvisionInfoRequest()
        metadata = [("worker_id", arguments.id)]
        info = service.GetProvisionInfo(request, timeout=ANSWERS_WITHIN_S, metadata=metadata).info
    os.environ |= {
        "WORKER_ID": arguments.id,
        "PIPELINE_OPTIONS": json_format.MessageToJson(info.pipeline_options),
        "LOGGING_API_SERVICE_DESCRIPTOR": text_format.MessageToString(info.logging_endpoint),
        "CONTROL_API_SERVICE_DESCRIPTOR": text_format.MessageToString(info.control_endpoint),
    }
    signal.signal(signal.SIGTERM, end)
    sdk_worker_main.main([])


def end(number: int, frame: object) -> None:
    """Publishes what is open, and ends the process: its threads may be waiting for messages."""
    rolling.close_all()
    os._exit(128 + number)


if __name__ == "__main__":
    main()
