"""Tells how a signature takes rows: any number in a call, exactly so many, or one without a dimension for rows."""

from dataclasses import replace

from model.specs import Signature, TensorSpec

_FEW = 64
"""Rows in a call below which a model that takes no more is worth a note."""


def takes_one_row(signature: Signature) -> bool:
    """Tells whether a signature has no dimension for rows: each call is of one row.

    Its inputs are dense and their shapes have no open first size. They are the shapes of one row if a single value is
    among them, if their first sizes differ, or if no output has their first size: `[28, 28]` with an output `[10]` is
    one image, `[8, 3]` with an output `[8, 1]` is a batch of eight rows.
    """
    shapes = [spec.shape for spec in signature.inputs]
    if not shapes or any(spec.kind != "dense" for spec in signature.inputs):
        return False
    if any(shape is None or (shape and shape[0] is None) for shape in shapes):
        return False
    if any(shape == () for shape in shapes):
        return True
    first = {shape[0] for shape in shapes if shape}
    if len(first) > 1:
        return True
    outputs = [spec.shape for spec in signature.outputs]
    return not any(shape is None or (shape and shape[0] in (None, *first)) for shape in outputs)


def with_rows(signature: Signature) -> Signature:
    """Returns a signature whose tensors have a first dimension for rows: of size one, if it takes one row as it is."""
    if not takes_one_row(signature):
        return signature
    inputs, outputs = (
        tuple(replace(spec, shape=None if spec.shape is None else (1, *spec.shape)) for spec in specs)
        for specs in (signature.inputs, signature.outputs)
    )
    return replace(signature, inputs=inputs, outputs=outputs)


def rows_of_a_call(signature: Signature) -> int | None:
    """Returns how many rows each call must have; None if it may be any number."""
    sizes = {spec.shape[0] for spec in signature.inputs if spec.shape and spec.kind == "dense"} - {None}
    return sizes.pop() if len(sizes) == 1 else None


def is_by_row(output: TensorSpec, signature: Signature) -> bool:
    """Tells whether an output has a value for each row, as far as its shape tells.

    Args:
      output: one of the signature's.
      signature: see `with_rows`.
    """
    if output.shape is None:
        return True
    return bool(output.shape) and output.shape[0] in (None, rows_of_a_call(signature))


def shape_text(shape: tuple[int | None, ...] | None) -> str:
    """Returns a shape as people write it: `[?, 3]`.

    >>> shape_text((None, 3))
    '[?, 3]'
    """
    return "any" if shape is None else f"[{', '.join('?' if size is None else str(size) for size in shape)}]"


def problem(signature: Signature) -> str | None:
    """Says why rows cannot be predicted by a signature; None if they can."""
    if not signature.inputs:
        return (
            f"signature '{signature.name}' has no inputs: it gives the same whatever the rows are; name another "
            "signature, or export one that takes the rows' values"
        )
    return None


def note(signature: Signature) -> str | None:
    """Says what it costs that a signature takes few rows in a call; None if it takes many.

    Args:
      signature: see `with_rows`.
    """
    rows = rows_of_a_call(signature)
    if rows is None or rows >= _FEW:
        return None
    if rows == 1:
        said = "takes one row in a call, so it is called for each row alone"
    else:
        said = f"takes exactly {rows} rows in a call (the last call is filled up with repeats)"
    return (
        f"signature '{signature.name}' {said}: some thousand calls a second at most; export it with an open first "
        "dimension, as in tf.TensorSpec([None, 3]), to predict thousands of rows in a call"
    )
