"""Reads what TensorFlow Serving takes as --model_config_file: a ModelServerConfig in protobuf's text.

See https://www.tensorflow.org/tfx/serving/serving_config. TensorFlow is not imported here.
"""

from typing import Any

from google.protobuf import text_format
from google.protobuf.message import DecodeError
from tensorflow_serving.config import model_server_config_pb2

from model.errors import ModelError
from model.serving.errors import note
from model.serving.options import ServedModel

_MAX_BYTES = 2**20
_PLATFORM = "tensorflow"


def read_model_config(file: str) -> tuple[ServedModel, ...]:
    """Reads the models of a file.

    Args:
      file: its path.

    Returns:
      The models, in the file's order. Without a policy the newest version of each is served.

    Raises:
      ModelError: the file is not such a config, or has what cannot be served; the message names the file and model.
      OSError: it cannot be read.
    """
    with open(file, "rb") as stream:
        data = stream.read(_MAX_BYTES + 1)
    if len(data) > _MAX_BYTES:
        raise ModelError(f"{file} has more than {_MAX_BYTES:,} bytes; it is no list of models")
    try:
        config = text_format.Parse(data.decode(), model_server_config_pb2.ModelServerConfig())
    except (text_format.ParseError, DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ModelError(f"{file} is not a ModelServerConfig in protobuf's text format: {error}") from error
    if config.WhichOneof("config") == "custom_model_config":
        raise ModelError(f"{file}: custom_model_config is not supported; list the models in model_config_list")
    models = tuple(_served(model, file) for model in config.model_config_list.config)
    if not models:
        raise ModelError(f"{file} lists no models; write model_config_list {{ config {{ name: ... base_path: ... }} }}")
    return models


def _served(config: Any, file: str) -> ServedModel:
    if not config.name:
        raise ModelError(f"{file}: a model has no name")
    where = f"{file}: model {config.name}"
    if not config.base_path:
        raise ModelError(f"{where} has no base_path, the folder of its versions")
    if "://" in config.base_path:
        raise ModelError(f"{where}: base_path {config.base_path} is not on this machine; copy the model here")
    if config.model_platform not in ("", _PLATFORM) or config.model_type == model_server_config_pb2.OTHER:
        raise ModelError(f'{where}: model_platform is "{config.model_platform}"; "{_PLATFORM}" is served')
    if config.HasField("logging_config"):
        note(f"{where}: logging_config is ignored; requests are not logged")
    keep: int | None = 1
    versions: frozenset[int] = frozenset()
    policy = config.model_version_policy
    choice = policy.WhichOneof("policy_choice")
    if choice == "latest":
        keep = policy.latest.num_versions or 1
    elif choice == "all":
        keep = None
    elif choice == "specific":
        versions = frozenset(policy.specific.versions)
        if not versions:
            raise ModelError(f"{where}: model_version_policy is specific, and names no versions")
    labels = dict(config.version_labels)
    for label, version in labels.items():
        if versions and version not in versions:
            raise ModelError(f"{where}: label {label} is for version {version}, which model_version_policy leaves out")
    return ServedModel(config.name, config.base_path, keep, versions, labels)
