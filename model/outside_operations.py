"""TensorFlow's operations that do something beside computing, and what that is."""

from dataclasses import dataclass
from typing import Any

from model.proto_subset import entries

READS = "reads files"
WRITES = "writes files"
SENDS = "talks to other processes"
RUNS = "runs Python of this process"
HIDES = "holds a program that this list cannot look into"


@dataclass(frozen=True)
class Effect:
    """Names what an operation does outside of the graph.

    Attributes:
      does: in words.
      file_input: the input with the name of the file, where one of the model's own files is no news.
      may_be_empty: whether an empty name stands for no file.
      unless_empty: the attribute without which it does nothing of it.
    """

    does: str
    file_input: int | None = None
    may_be_empty: bool = False
    unless_empty: str | None = None


CHECKPOINT = frozenset({"MergeV2Checkpoints", "RestoreV2", "SaveV2"})
"""What every model has, to write and to restore its variables."""

_PLAIN = {
    READS: """
        DTensorRestoreV2 ExperimentalMatchingFilesDataset ExperimentalSqlDataset FixedLengthRecordReader
        FixedLengthRecordReaderV2 GenerateVocabRemapping LMDBReader ListSnapshotChunksDataset LoadAndRemapMatrix
        LoadDataset MatchingFiles MatchingFilesDataset RecordInput Restore RestoreSlice RestoreV2
        SnapshotChunkDataset SnapshotDatasetReader SnapshotNestedDatasetReader Skipgram SqlDataset
        TFRecordReader TFRecordReaderV2 TextLineReader TextLineReaderV2 WholeFileReader WholeFileReaderV2
        """,
    WRITES: """
        CalibrationStatisticsSaver CreateSummaryDbWriter CreateSummaryFileWriter DatasetToTFRecord DumpTensor
        ExperimentalDatasetToTFRecord MergeV2Checkpoints Save SaveDataset SaveDatasetV2 SaveSlices SaveV2
        SnapshotDataset SnapshotDatasetV2 WriteAudioSummary WriteFile WriteGraphSummary WriteHistogramSummary
        WriteImageSummary WriteRawProtoSummary WriteScalarSummary WriteSummary
        """,
    SENDS: """
        CollectiveAllToAllV2 CollectiveAllToAllV3 CollectiveAssignGroupV2 CollectiveBcastRecv CollectiveBcastRecvV2
        CollectiveBcastSend CollectiveBcastSendV2 CollectiveGather CollectiveGatherV2
        CollectiveInitializeCommunicator CollectivePermute CollectiveReduce CollectiveReduceScatterV2
        CollectiveReduceV2 CollectiveReduceV3 DataServiceDataset DataServiceDatasetV2 DataServiceDatasetV3
        DataServiceDatasetV4 DistributedSave Recv RegisterDataset RegisterDatasetV2 RemoteCall RpcCall RpcClient
        RpcServer RpcServerRegister RpcServerStart Send _HostRecv _HostSend _Recv _Send
        """,
    RUNS: "EagerPyFunc PyFunc PyFuncStateless",
    HIDES: "DatasetFromGraph MlirPassthroughOp RemoteFusedGraphExecute XlaCallModule _TPUCompileMlir",
}

_OF_A_FILE = """
    CSVDataset CSVDatasetV2 ExperimentalCSVDataset ExperimentalLMDBDataset FixedLengthRecordDataset
    FixedLengthRecordDatasetV2 LMDBDataset ReadFile TFRecordDataset TFRecordDatasetV2 TextLineDataset
    """
_DEBUGGING = "DebugIdentity DebugIdentityV2 DebugIdentityV3 DebugNanCount DebugNumericSummary"

OPERATIONS: dict[str, Effect] = {
    **{name: Effect(does) for does, names in _PLAIN.items() for name in names.split()},
    **{name: Effect(READS, file_input=0) for name in _OF_A_FILE.split()},
    **{
        name: Effect("writes files, or talks to other processes", unless_empty="debug_urls")
        for name in _DEBUGGING.split()
    },
    "InitializeTableFromTextFile": Effect(READS, file_input=1),
    "InitializeTableFromTextFileV2": Effect(READS, file_input=1),
    "CacheDataset": Effect(WRITES, file_input=1, may_be_empty=True),
    "CacheDatasetV2": Effect(WRITES, file_input=1, may_be_empty=True),
    "FileSystemSetConfiguration": Effect("changes how files are reached"),
    "FixedUnigramCandidateSampler": Effect(READS, unless_empty="vocab_file"),
}
"""By TensorFlow's name of the operation. PrintV2 is not here: it depends on where it prints."""

_FREQUENT = """
    Add AddN AddV2 BiasAdd Cast ConcatV2 Const Conv2D Equal Exp ExpandDims Fill Floor FusedBatchNormV3 GatherV2
    Greater Identity IsNan Less LogicalAnd LookupTableFindV2 MatMul Maximum Mean Minimum Mul Neg NoOp Pack
    Placeholder Pow Prod Range ReadVariableOp RealDiv Relu Reshape Rsqrt Select SelectV2 Shape Sigmoid Slice
    Softmax Square Squeeze StridedSlice StringJoin Sub Sum Tanh Tile Transpose VarHandleOp ZerosLike
    """

WITHOUT_FUNCTIONS = frozenset(_FREQUENT.split())
"""Frequent operations that call no function, so that their attributes need not be looked at."""

_FOREIGN = ("IO>", "BigQuery", "Bigtable", "CloudBigtable", "Kafka", "PubSub")
"""How names of operations begin that other packages bring along, to read and write services."""


def effect_of(node: Any) -> Effect | None:
    """Returns what a node does outside of its graph, as far as the node alone tells; None if nothing.

    Args:
      node: a NodeDef message.
    """
    if node.op == "PrintV2":
        stream = entries(node.attr).get("output_stream")
        return Effect(WRITES) if stream is not None and stream.s.startswith(b"file:") else None
    effect = OPERATIONS.get(node.op)
    if effect is None:
        return Effect(SENDS) if node.op.startswith(_FOREIGN) else None
    if effect.unless_empty is not None:
        given = entries(node.attr).get(effect.unless_empty)
        return effect if given is not None and (given.s or any(given.list.s)) else None
    return effect
