"""Perplexity of a text by transformers in float32, scored as `moeflux eval` scores it.

Windows of `window` tokens start every `stride` tokens; in each, only the tokens that no earlier window scored count,
with all the window before them as context. The first token of the text has no context and is not scored.
No token is added in front. Perplexity = exp(mean negative log-likelihood).

    python perplexity.py path/to/hf heldout.txt --window 2048 --stride 1024
"""
import argparse, math, os

import torch
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM

END = "<|endoftext|>"


def windows(n_tokens, window, stride):
    """(begin, first scored, end) of each window over n_tokens."""
    begin, scored = 0, 1
    while True:
        end = min(begin + window, n_tokens)
        yield begin, max(scored, begin + 1), end
        if end == n_tokens: return
        begin, scored = begin + stride, end


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("model", help="Hugging Face checkpoint folder")
    p.add_argument("text", help="UTF-8 text file")
    p.add_argument("--window", type=int, default=2048)
    p.add_argument("--stride", type=int, help="default: half the window")
    p.add_argument("--documents", type=int, help="score only the first so many documents (each ends with <|endoftext|>)")
    o = p.parse_args()
    stride = o.stride or o.window // 2
    text = open(o.text, encoding="utf-8").read()
    if o.documents: text = "".join(d + END for d in text.split(END)[:o.documents])
    tokenizer = Tokenizer.from_file(os.path.join(o.model, "tokenizer.json"))
    ids = torch.tensor(tokenizer.encode(text, add_special_tokens=False).ids)
    model = AutoModelForCausalLM.from_pretrained(o.model, dtype=torch.float32, attn_implementation="eager").eval()
    total, scored = 0.0, 0
    with torch.no_grad():
        for begin, first, end in windows(len(ids), o.window, stride):
            logits = model(ids[None, begin:end]).logits[0, first - begin - 1:-1]
            total += torch.nn.functional.cross_entropy(logits.double(), ids[first:end], reduction="sum").item()
            scored += end - first
    print(f"tokens {len(ids)}, scored {scored}, mean nll {total / scored:.6f}, perplexity {math.exp(total / scored):.6f}")


if __name__ == "__main__":
    main()
