"""A small tokenizer in tiktoken's format with Kimi's way to split texts, and what tiktoken makes of texts with it.

    pip install tiktoken regex
    python tools/reference/tiktoken_vectors.py tests/data/heldout.txt tests/data/tiktoken

Writes `tiktoken.model`, `tokenizer_config.json` and `cases.json`, a list of texts and their token ids.
"""

import base64
import json
import pathlib
import random
import sys
from collections import Counter

import regex
import tiktoken

# As Moonshot AI's models are published with.
LETTERS = r"\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]"
CONTRACTION = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
PATTERN = "|".join([
    r"[\p{Han}]+",
    rf"[^\r\n\p{{L}}\p{{N}}]?[\p{{Lu}}\p{{Lt}}{LETTERS}]*[\p{{Ll}}{LETTERS}]+{CONTRACTION}",
    rf"[^\r\n\p{{L}}\p{{N}}]?[\p{{Lu}}\p{{Lt}}{LETTERS}]+[\p{{Ll}}{LETTERS}]*{CONTRACTION}",
    r"\p{N}{1,3}", r" ?[^\s\p{L}\p{N}]+[\r\n]*", r"\s*[\r\n]+", r"\s+(?!\S)", r"\s+",
])
MERGES = 700
SPECIAL = {0: "[BOS]", 1: "[EOS]", 2: "<|im_end|>", 3: "<|im_user|>"}

WORDS = ["Hello", "world", "naïve", "ÉCOLE", "it's", "WE'LL", "don'T", "你好", "世界很大", "日本語のテキスト", "кошка", "עברית",
         "x86_64", "12345678", "3.14", "🙂", "👩‍👩‍👧", "e\u0301", "\u0301", "foo(bar)", "a=b;", "\t", "\n", "\r\n\r\n", "   ", "…",
         "camelCase", "HTTPServer", "한국어", "مرحبا", "ǅ", "ʰ", "\u3000", "!?\n", "'s", "中a文B"]


def train(text):
    words = Counter(regex.findall(PATTERN.replace("&&[^", "--[").replace("\\p{Han}]]", "\\p{Han}]]"), text, flags=regex.V1))
    split = {word: [bytes([b]) for b in word.encode()] for word in words}
    tokens = [bytes([b]) for b in range(256)]
    while len(tokens) < 256 + MERGES:
        pairs = Counter()
        for word, count in words.items():
            for pair in zip(split[word], split[word][1:]):
                pairs[pair] += count
        a, b = max(pairs, key=lambda pair: (pairs[pair], pair))
        tokens.append(a + b)
        for word, parts in split.items():
            merged, i = [], 0
            while i < len(parts):
                if parts[i:i + 2] == [a, b]:
                    merged.append(a + b)
                    i += 2
                else:
                    merged.append(parts[i])
                    i += 1
            split[word] = merged
    return {token: rank for rank, token in enumerate(dict.fromkeys(tokens))}


random.seed(5)
text = pathlib.Path(sys.argv[1]).read_text()[:20000] + " ".join(random.choice(WORDS) for _ in range(3000))
ranks = train(text)
base = len(ranks)
special = {SPECIAL.get(i, f"<|reserved_token_{base + i}|>"): base + i for i in range(256)}
encoding = tiktoken.Encoding("kimi", pat_str=PATTERN, mergeable_ranks=ranks, special_tokens=special)

out = pathlib.Path(sys.argv[2])
out.mkdir(exist_ok=True)
lines = (f"{base64.b64encode(token).decode()} {rank}\n" for token, rank in ranks.items())
(out / "tiktoken.model").write_text("".join(lines))
added = {str(base + i): {"content": name, "special": name != "<|im_user|>"} for i, name in SPECIAL.items()}
config = {"tokenizer_class": "TikTokenTokenizer", "bos_token": "[BOS]", "eos_token": "[EOS]",
          "auto_map": {"AutoTokenizer": ["tokenization_kimi.TikTokenTokenizer", None]}, "added_tokens_decoder": added}
(out / "tokenizer_config.json").write_text(json.dumps(config, indent=1, ensure_ascii=False) + "\n")
texts = ["", " ", "[BOS]Hello<|im_end|>", f"a<|reserved_token_{base + 255}|>b"] + WORDS
texts += ["".join(random.choice([" ", "", "", "\n", "  "]) + random.choice(WORDS) for _ in range(random.randint(1, 25)))
          for _ in range(400)]
texts += ["".join(chr(random.choice([random.randint(1, 0x250), random.randint(0x4e00, 0x4f00), random.randint(0x300, 0x370)]))
                  for _ in range(random.randint(1, 40))) for _ in range(200)]
cases = [[text, encoding.encode(text, allowed_special="all")] for text in texts]
(out / "cases.json").write_text(json.dumps(cases, ensure_ascii=False) + "\n")
