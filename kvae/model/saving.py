"""Keras `save`, `save_weights` and `export` of a model. If one of them does not complete, no file has changed."""

import contextlib
import io
import os
import re
from pathlib import Path
from typing import Any

from kvae.internal import files, finite
from kvae.internal.errors import UserError
from kvae.internal.quiet_output import silenced, without_tensorflow_reports
from kvae.model.keras_privates import SignatureOfCall

# Places that Keras does not write as local files.
REMOTE = re.compile(r".*://|/(cns|cfs|gcs|hdfs|readahead|placer|tfhub)")
# For each format of `export`, the end of the file's name, or None for a folder.
ENDINGS: dict[str, str | None] = {"tf_saved_model": None, "onnx": "", "openvino": ".xml", "litert": ".tflite"}


class Saving(SignatureOfCall):
    """A Keras model that writes files as Keras does, but each of them whole or not at all.

    Keras itself writes where kvae cannot replace a file at once: file objects, remote places such as `hf://` and
    `gs://`, and `keras.saving.save_model(model, path)`, which does not call the method `save` of the model. It also
    gives the errors for names that it does not accept, before anything is written.
    """

    def save(self, filepath: Any, overwrite: bool = True, zipped: bool | None = None, **kwargs: Any) -> None:
        """Keras `save`, but atomic: if it fails, for example because the disk is full, existing files are unchanged.

        Args:
            filepath: a path that ends in `.keras` (or `.h5`), or for `zipped=False` the path of a folder, of which
                only the files of the model are replaced.
            overwrite: whether an existing file is replaced. If False, you are asked in the terminal. True by default.
            zipped: False for a folder. By default the model is one file.
            **kwargs: further arguments of Keras.

        Raises:
            UserError: if the file cannot be written (it is also an OSError), or if there is no terminal to ask in.
            ValueError: if Keras does not accept the name or another argument.
        """
        path, name = _local(filepath), str(filepath)
        as_folder = zipped is not None and not zipped
        accepted = not name.endswith(".keras") if as_folder else name.endswith((".keras", ".h5", ".hdf5"))
        if path is None or not accepted:
            super().save(filepath, overwrite, zipped, **kwargs)
        elif overwrite or _may_replace(path):
            with (files.atomic_entries if as_folder else files.atomic_file)(path) as partial:
                super().save(partial, True, zipped, **kwargs)

    def save_weights(self, filepath: Any, overwrite: bool = True, max_shard_size: float | None = None) -> None:
        """Keras `save_weights`, but atomic, as `save`. Arguments and errors are those of Keras and of `save`."""
        path = _local(filepath)
        accepted = ".weights.h5" if max_shard_size is None else ("weights.h5", "weights.json")
        if path is None or not str(filepath).endswith(accepted):
            super().save_weights(filepath, overwrite, max_shard_size)
        elif not overwrite and not _may_replace(path):
            return
        elif max_shard_size is None:
            with files.atomic_file(path) as partial:
                super().save_weights(partial)
        else:
            with files.atomic_entries(path.parent) as folder:
                super().save_weights(folder / path.name, True, max_shard_size)

    def export(
        self,
        filepath: Any,
        format: str = "tf_saved_model",
        verbose: bool | None = None,
        input_signature: Any = None,
        **kwargs: Any,
    ) -> None:
        """Keras `export` of `call` for any batch size, but atomic, as `save`. The model need not have been called.

        Args:
            filepath: the folder of a SavedModel, or the file of another format.
            format: `tf_saved_model`, the default, `litert`, `onnx` or `openvino`. The last two need packages of their
                own.
            verbose: whether to print what was written, as Keras does. True by default.
            input_signature: the inputs. By default those of `_export_signature`.
            **kwargs: further arguments of Keras.

        Raises:
            UserError: if the model is not built or has a weight that is NaN or infinite, or the file cannot be written.
            ValueError: if Keras does not accept an argument.
            ImportError: if a package for the format is missing.
        """
        finite.check_weights(self)
        signature = self._export_signature() if input_signature is None else input_signature
        path, ending = _local(filepath), ENDINGS.get(format)
        # The converter of LiteRT writes to file descriptor 2 whatever the log level.
        quiet = silenced() if format == "litert" else contextlib.nullcontext()
        with without_tensorflow_reports(), quiet:
            if path is None or format not in ENDINGS or not str(filepath).endswith(ending or ""):
                super().export(filepath, format, verbose, signature, **kwargs)
                return
            printed = io.StringIO()
            with files.atomic_entries(path if ending is None else path.parent) as folder:
                partial = str(folder if ending is None else folder / path.name)
                with contextlib.redirect_stdout(printed):
                    super().export(partial, format, verbose, signature, **kwargs)
        print(printed.getvalue().replace(partial, str(path)), end="")

    def _export_signature(self) -> Any:
        """The inputs of `call` as `tf.TensorSpec`, or None if Keras knows them, as it does of a network."""
        return None


def _local(path: Any) -> Path | None:
    """The path of a local file or folder, or None for a file object or a remote place."""
    return Path(path) if isinstance(path, str | os.PathLike) and not REMOTE.match(str(path)) else None


def _may_replace(path: Path) -> bool:
    """Whether a path is free, or else the user agrees in the terminal to replace what is there.

    Raises:
        UserError: if there is no terminal.
    """
    if not path.exists():
        return True
    try:
        while (answer := input(f"{path} exists. Overwrite it? [y/n] ").strip().lower()) not in ("y", "n"):
            pass
    except EOFError as error:
        raise UserError(
            f"With overwrite=False, kvae asks in the terminal whether to replace {path}, and there is no terminal. "
            "Choose another name, or pass overwrite=True."
        ) from error
    return answer == "y"
