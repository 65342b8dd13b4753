"""A small SentencePiece BPE model with byte fallback, as GGUF metadata has it, and what SentencePiece makes of texts.

    pip install sentencepiece
    python tools/reference/sentence_piece.py tests/data/heldout.txt tests/data/sentence_piece.json
"""

import json
import pathlib
import sys
import tempfile

import sentencepiece

TEXTS = [
    "", " ", "  ", "Hello world", " leading", "trailing ", "two  spaces   three", "a\nb\tc", "naïve café", "日本語 🙂",
    "x = 3.14; // comment\n    y += 1", "The quick brown fox jumps over the lazy dog.", "ＡＢＣ １２３", "▁", "zzzzzzzzzz",
    "< s > not special", "'\"`~!@#$%^&*()", "mixed 中文 and English, mixed.",
]

with tempfile.TemporaryDirectory() as folder:
    prefix = str(pathlib.Path(folder) / "model")
    # As Llama's and Mixtral's models were made.
    sentencepiece.SentencePieceTrainer.train(
        input=sys.argv[1], model_prefix=prefix, vocab_size=600, model_type="bpe", byte_fallback=True,
        normalization_rule_name="identity", remove_extra_whitespaces=False, split_digits=True, num_threads=1,
        allow_whitespace_only_pieces=True, character_coverage=0.999)
    model = sentencepiece.SentencePieceProcessor(model_file=prefix + ".model")


def kind(id):
    if model.is_unknown(id):
        return 2
    if model.is_control(id):
        return 3
    return 6 if model.is_byte(id) else 1


ids = range(model.vocab_size())
lines = pathlib.Path(sys.argv[1]).read_text().splitlines()[:40]
cases = [{"text": text, "ids": model.encode(text), "decoded": model.decode(model.encode(text))} for text in TEXTS + lines]
json.dump({"tokens": [model.id_to_piece(id) for id in ids], "scores": [model.get_score(id) for id in ids],
           "token_type": [kind(id) for id in ids], "cases": cases}, open(sys.argv[2], "w"), ensure_ascii=False, indent=0)
