"""Declares the part of TensorFlow's SavedModel messages that says what a model takes and gives.

Field numbers are those of tensorflow/core/protobuf/{saved_model,meta_graph,saved_object_graph,struct}.proto and
tensorflow/core/framework/{graph,node_def,function,op_def,attr_value,tensor,tensor_shape,types}.proto.
"""

from typing import Any

from google.protobuf.message import DecodeError  # type: ignore[import-untyped, unused-ignore]

from model.errors import ModelFormatError
from model.proto_subset import build_messages

_MESSAGES = build_messages(
    "model.saved_model",
    {
        "SavedModel": [("meta_graphs", 2, "repeated MetaGraphDef")],
        "MetaGraphDef": [
            ("meta_info_def", 1, "MetaInfoDef"),
            ("graph_def", 2, "GraphDef"),
            ("collection_def", 4, "map CollectionDef"),
            ("signature_def", 5, "map SignatureDef"),
            ("asset_file_def", 6, "repeated AssetFileDef"),
            ("object_graph_def", 7, "SavedObjectGraph"),
        ],
        "CollectionDef": [("node_list", 1, "NodeList"), ("any_list", 5, "AnyList")],
        "NodeList": [("value", 1, "repeated string")],
        "AnyList": [("value", 1, "repeated AnyMessage")],
        "AnyMessage": [("type_url", 1, "string"), ("value", 2, "bytes")],
        "AssetFileDef": [("tensor_info", 1, "TensorInfo"), ("filename", 2, "string")],
        "MetaInfoDef": [("tags", 4, "repeated string")],
        "SignatureDef": [
            ("inputs", 1, "map TensorInfo"),
            ("outputs", 2, "map TensorInfo"),
            ("method_name", 3, "string"),
        ],
        "TensorInfo": [
            ("name", 1, "string"),
            ("dtype", 2, "int32"),
            ("tensor_shape", 3, "TensorShapeProto"),
            ("coo_sparse", 4, "CooSparse"),
            ("composite_tensor", 5, "CompositeTensor"),
        ],
        "CooSparse": [
            ("values_tensor_name", 1, "string"),
            ("indices_tensor_name", 2, "string"),
            ("dense_shape_tensor_name", 3, "string"),
        ],
        "CompositeTensor": [("type_spec", 1, "TypeSpecProto"), ("components", 2, "repeated TensorInfo")],
        "TensorShapeProto": [("dim", 2, "repeated Dim"), ("unknown_rank", 3, "bool")],
        "Dim": [("size", 1, "int64")],
        "TypeSpecProto": [
            ("type_spec_class", 1, "int32"),
            ("type_state", 2, "StructuredValue"),
            ("num_flat_components", 4, "int32"),
        ],
        "StructuredValue": [
            ("int64_value", 12, "int64"),
            ("tensor_shape_value", 31, "TensorShapeProto"),
            ("tensor_dtype_value", 32, "int32"),
            ("tensor_spec_value", 33, "TensorSpecProto"),
            ("type_spec_value", 34, "TypeSpecProto"),
            ("bounded_tensor_spec_value", 35, "TensorSpecProto"),
            ("list_value", 51, "Values"),
            ("tuple_value", 52, "Values"),
            ("dict_value", 53, "DictValue"),
            ("named_tuple_value", 54, "NamedTupleValue"),
        ],
        "TensorSpecProto": [("name", 1, "string")],
        "Values": [("values", 1, "repeated StructuredValue")],
        "DictValue": [("fields", 1, "map StructuredValue")],
        "NamedTupleValue": [("values", 2, "map StructuredValue")],
        "SavedObjectGraph": [
            ("nodes", 1, "repeated SavedObject"),
            ("concrete_functions", 2, "map SavedConcreteFunction"),
        ],
        "SavedObject": [
            ("children", 1, "repeated ObjectReference"),
            ("asset", 5, "SavedAsset"),
            ("function", 6, "SavedFunction"),
            ("bare_concrete_function", 8, "SavedBareConcreteFunction"),
        ],
        "ObjectReference": [("node_id", 1, "int32"), ("local_name", 2, "string")],
        "SavedAsset": [("asset_file_def_index", 1, "int32")],
        "SavedFunction": [("concrete_functions", 1, "repeated string")],
        "SavedBareConcreteFunction": [("concrete_function_name", 1, "string")],
        "SavedConcreteFunction": [
            ("bound_inputs", 2, "repeated int32"),
            ("canonicalized_input_signature", 3, "StructuredValue"),
        ],
        "GraphDef": [("node", 1, "repeated NodeDef"), ("library", 2, "FunctionDefLibrary")],
        "FunctionDefLibrary": [("function", 1, "repeated FunctionDef")],
        "FunctionDef": [
            ("signature", 1, "OpDef"),
            ("node_def", 3, "repeated NodeDef"),
            ("arg_attr", 7, "repeated ArgAttrEntry"),
        ],
        "ArgAttrEntry": [("key", 1, "int32"), ("value", 2, "ArgAttrs")],
        "ArgAttrs": [("attr", 1, "map AttrValue")],
        "OpDef": [("name", 1, "string"), ("input_arg", 2, "repeated ArgDef")],
        "ArgDef": [("name", 1, "string")],
        "NodeDef": [
            ("name", 1, "string"),
            ("op", 2, "string"),
            ("input", 3, "repeated string"),
            ("attr", 5, "map AttrValue"),
        ],
        "AttrValue": [
            ("list", 1, "AttrList"),
            ("s", 2, "bytes"),
            ("i", 3, "int64"),
            ("type", 6, "int32"),
            ("shape", 7, "TensorShapeProto"),
            ("tensor", 8, "TensorProto"),
            ("func", 10, "NameAttrList"),
        ],
        "AttrList": [
            ("s", 2, "repeated bytes"),
            ("i", 3, "repeated int64"),
            ("type", 6, "repeated int32"),
            ("shape", 7, "repeated TensorShapeProto"),
            ("func", 9, "repeated NameAttrList"),
        ],
        "NameAttrList": [("name", 1, "string")],
        "TensorProto": [
            ("dtype", 1, "int32"),
            ("tensor_shape", 2, "TensorShapeProto"),
            ("string_val", 8, "repeated bytes"),
        ],
    },
)

SPARSE_TENSOR_SPEC = 1
"""TypeSpecProto.TypeSpecClass of a SparseTensor."""

RAGGED_TENSOR_SPEC = 3
"""TypeSpecProto.TypeSpecClass of a RaggedTensor."""

_REFERENCE_TYPES = 100

_DTYPES = {
    1: "float32",
    2: "float64",
    3: "int32",
    4: "uint8",
    5: "int16",
    6: "int8",
    7: "string",
    8: "complex64",
    9: "int64",
    10: "bool",
    11: "qint8",
    12: "quint8",
    13: "qint32",
    14: "bfloat16",
    15: "qint16",
    16: "quint16",
    17: "uint16",
    18: "complex128",
    19: "float16",
    20: "resource",
    21: "variant",
    22: "uint32",
    23: "uint64",
    24: "float8_e5m2",
    25: "float8_e4m3fn",
    26: "float8_e4m3fnuz",
    27: "float8_e4m3b11fnuz",
    28: "float8_e5m2fnuz",
    29: "int4",
    30: "uint4",
    31: "int2",
    32: "uint2",
    33: "float4_e2m1fn",
}

_NUMBERS = {name: number for number, name in _DTYPES.items()}


def parse_saved_model(data: bytes, source: str) -> Any:
    """Parses the bytes of a saved_model.pb.

    Args:
      data: the file's content.
      source: the file's path, for the error message.

    Returns:
      The SavedModel message (of the subset above).

    Raises:
      ModelFormatError: the bytes are not a SavedModel.
    """
    try:
        message = _MESSAGES["SavedModel"].FromString(data)
    except DecodeError as error:
        raise ModelFormatError(
            f"{source} is not a SavedModel: the file is damaged or cut off; export or copy the model again"
        ) from error
    if not message.meta_graphs:
        raise ModelFormatError(f"{source} is not a SavedModel: it holds no graph; export the model again")
    return message


def asset_files(meta_graph: Any) -> list[Any]:
    """Returns the AssetFileDef messages of a meta graph; builders of TensorFlow 1 keep them in a collection."""
    found = list(meta_graph.asset_file_def)
    for pair in meta_graph.collection_def:
        if pair.key == "saved_model_assets":
            try:
                found += [_MESSAGES["AssetFileDef"].FromString(item.value) for item in pair.value.any_list.value]
            except DecodeError:
                continue
    return found


def dtype_name(number: int) -> str:
    """Returns TensorFlow's name of a DataType number: 1 is "float32", 7 is "string"."""
    return _DTYPES.get(number % _REFERENCE_TYPES, f"unknown dtype {number}")


def dtype_number(name: str) -> int:
    """Returns the DataType number of a dtype that `dtype_name` gives."""
    return _NUMBERS[name]


def shape_of(shape: Any) -> tuple[int | None, ...] | None:
    """Returns a TensorShapeProto as a tuple; None for an unknown size, and for an unknown rank."""
    if shape.unknown_rank:
        return None
    return tuple(dim.size if dim.size >= 0 else None for dim in shape.dim)
