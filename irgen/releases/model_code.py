"""Load a registered model: MLflow keeps this file with the model and runs it, with the package
``irgen`` beside it. Nothing is pickled."""

from irgen.releases.pull import follow_pointer
from irgen.tracking.served import serve_index

serve_index(follow_pointer)
