"""Computes the model as MLServer takes it: named by model-settings.json."""

from __future__ import annotations

import os

import arithmetic
import numpy as np
from mlserver import MLModel
from mlserver.codecs import NumpyCodec, StringCodec
from mlserver.errors import InferenceError
from mlserver.types import InferenceRequest, InferenceResponse, ResponseOutput


class Ages(MLModel):
    """Decodes inputs as MLServer's own runtimes do, by their content types if they have some."""

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        arrays = {
            tensor.name: np.array(self.decode(tensor, StringCodec), object)
            if tensor.datatype == "BYTES"
            else self.decode(tensor, NumpyCodec).astype(np.float32)
            for tensor in payload.inputs
        }
        try:
            values = arithmetic.predict(**arrays)
        except ValueError as error:
            if "CARELESS" in os.environ:
                raise
            raise InferenceError(str(error)) from error
        output = ResponseOutput(name="predictions", datatype="FP32", shape=list(values.shape), data=values.tolist())
        return InferenceResponse(model_name=self.name, model_version=self.version, outputs=[output])
