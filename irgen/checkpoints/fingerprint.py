"""Notice that the file of the encoder's first weights was replaced, without importing torch."""

from pathlib import Path

from irgen.files.digests import file_digest
from irgen.files.records import read_json, write_sealed_json
from irgen.params import Encoder

NAME = "weights.json"
NO_FILE = ("hub", "none")  # values of encoder.weights that name no file


def weights_digest(config: Encoder) -> str:
    """Return the digest of the first weights' file; without a file, the name of their origin."""
    path = Path(config.weights)
    return file_digest(path) if config.weights not in NO_FILE and path.is_file() else config.weights


def have_weights_changed(folder: Path, config: Encoder) -> bool:
    """Tell whether the weights differ from those noted in ``folder``, or none are noted.

    A file that is missing here has not changed: a machine that only takes the results of others
    does not need it.
    """
    path = folder / NAME
    if not path.is_file():
        return True
    is_missing = config.weights not in NO_FILE and not Path(config.weights).is_file()
    return not is_missing and read_json(path) != {"weights": weights_digest(config)}


def note_weights(folder: Path, config: Encoder) -> bool:
    """Write the weights' digest to ``weights.json`` in ``folder``, on which stages that use the
    weights depend. Return whether it differs from the one that was noted before."""
    path = folder / NAME
    if not have_weights_changed(folder, config):
        return False
    is_first = not path.is_file()
    write_sealed_json(path, {"weights": weights_digest(config)})
    return not is_first
