"""Serves the model with KServe: `python serve.py PORT`."""

from __future__ import annotations

import os
import sys
from typing import Any

import arithmetic
import numpy as np
import uvicorn
from kserve import InferOutput, InferRequest, InferResponse, Model, ModelServer
from kserve.errors import InvalidInput


class Ages(Model):
    """Takes V1 instances (an object a row) and V2 tensors."""

    def __init__(self) -> None:
        super().__init__(arithmetic.MODEL)
        self.ready = True

    def get_input_types(self) -> list[dict[str, Any]]:
        return [{"name": name, "datatype": kind, "shape": [-1]} for name, kind in arithmetic.INPUTS.items()]

    def get_output_types(self) -> list[dict[str, Any]]:
        return [{"name": name, "datatype": kind, "shape": [-1]} for name, kind in arithmetic.OUTPUTS.items()]

    async def predict(self, payload: Any, headers: Any = None, response_headers: Any = None) -> Any:
        if isinstance(payload, InferRequest):
            arrays = {tensor.name: tensor.as_numpy() for tensor in payload.inputs}
        else:
            rows = payload["instances"]
            arrays = {name: np.array([row[name] for row in rows], object) for name in arithmetic.INPUTS}
            arrays |= {name: arrays[name].astype(np.float32) for name in ("mother_age", "plurality")}
        try:
            values = arithmetic.predict(**arrays)
        except ValueError as error:
            if "CARELESS" in os.environ:
                raise
            raise InvalidInput(str(error)) from error
        if not isinstance(payload, InferRequest):
            return {"predictions": values.tolist()}
        output = InferOutput("predictions", list(values.shape), "FP32")
        output.set_data_from_numpy(values, binary_data=payload.use_binary_outputs)
        return InferResponse(
            payload.id or "",
            self.name,
            [output],
            use_binary_outputs=payload.use_binary_outputs,
            requested_outputs=payload.request_outputs,
        )


class LoopbackConfig(uvicorn.Config):
    """KServe says 0.0.0.0, and has no option for it."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **{**options, "host": "127.0.0.1"})


if __name__ == "__main__":
    port = int(sys.argv[1])
    uvicorn.Config = LoopbackConfig  # type: ignore[misc]
    ModelServer(http_port=port, enable_grpc=False, workers=1).start([Ages()])
