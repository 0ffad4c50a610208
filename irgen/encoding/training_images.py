"""Load the images of a training: pixels for an encoder that is trained, else its cached views."""

from irgen.encoding.batches import EncodedViews, Pixels
from irgen.encoding.encode import Encoding, open_pixels
from irgen.encoding.views import encode_views
from irgen.models.encoder import ImageEncoder
from irgen.params import Augment


def load_training_images(
    encoder: ImageEncoder,
    sha256s: list[str],
    changes: Augment,
    seed: int,
    encoding: Encoding,
    *,
    tuned: bool,
) -> EncodedViews | Pixels:
    """Return images to train on: pixels if the encoder is ``tuned``, else its cached views."""
    if tuned:
        pixels = open_pixels(encoder, sha256s, encoding)
        return Pixels(pixels, encoder.decoding.size, changes)
    return encode_views(encoder, sha256s, changes, seed, encoding)
