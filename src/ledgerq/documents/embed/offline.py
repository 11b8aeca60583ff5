"""Vectors without a network: WordLlama's 256-dimensional word vectors, averaged. The weights are in the wheel of `wordllama`.

Only its files are used, not its code: importing `wordllama` configures logging for the whole process, and its inference pads
each batch to the longest text in float32, which takes 20 times the memory of the sum below.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ledgerq.documents.embed.base import Embedded
from ledgerq.errors import ConfigurationError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

DIMENSIONS: Final = 256
_WEIGHTS: Final = Path("weights/l2_supercat_256.safetensors")
_TOKENIZER: Final = Path("tokenizers/l2_supercat_tokenizer_config.json")


class OfflineEmbedder:
    """Mean of word vectors, normalised; equal to `WordLlama.load().embed(norm=True)`. 2 ms of CPU for a chunk of 512 tokens.

    Loaded at the first use: 0.2 s and about 60 MB.
    """

    name = f"wordllama-l2-supercat-{DIMENSIONS}"
    provider = "offline"
    dimensions = DIMENSIONS
    max_tokens = 8_191
    """It has no limit of its own; this one is that of the other embedders, so that they can stand in for each other."""
    max_batch_items = 64
    max_batch_tokens = 300_000
    concurrency = 1

    def __init__(self) -> None:
        self._model: _Model | None = None

    def embed(self, texts: Sequence[str]) -> Embedded:
        """See `Embedder.embed`. A text without any known word has the vector 0."""
        if self._model is None:
            self._model = _Model(_directory())
        return self._model.embed(texts)

    def close(self) -> None:
        """Let go of the weights. The embedder may be used again."""
        self._model = None


class _Model:
    def __init__(self, directory: Path) -> None:
        from safetensors import safe_open
        from tokenizers import Tokenizer

        self._tokenizer: Any = Tokenizer.from_file(str(directory / _TOKENIZER))
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        opened: Any = safe_open(directory / _WEIGHTS, framework="np")
        with opened as file:
            # Kept as float16, as they are stored: only the rows of one text at a time become float32.
            self._weights: NDArray[np.float16] = file.get_tensor("embedding.weight")

    def embed(self, texts: Sequence[str]) -> Embedded:
        import numpy as np

        encoded = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        vectors = np.zeros((len(encoded), DIMENSIONS), dtype=np.float32)
        tokens = 0
        for row, encoding in enumerate(encoded):
            ids = np.minimum(np.asarray(encoding.ids, dtype=np.int64), len(self._weights) - 1)
            tokens += len(ids)
            if len(ids):
                vectors[row] = self._weights[ids].sum(axis=0, dtype=np.float32)
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        np.divide(vectors, lengths, out=vectors, where=lengths > 0)
        return Embedded(vectors.astype(np.float64).round(7).tolist(), tokens)


def _directory() -> Path:
    """Where the package is installed, found without importing it."""
    spec = find_spec("wordllama")
    if spec is None or spec.origin is None:
        raise ConfigurationError("the offline embedder needs wordllama: pip install 'ledgerq[local]', or set OPENAI_API_KEY")
    directory = Path(spec.origin).parent
    for file in (_WEIGHTS, _TOKENIZER):
        if not (directory / file).is_file():
            raise ConfigurationError(f"this release of wordllama does not carry {file}: install wordllama 0.4")
    return directory
