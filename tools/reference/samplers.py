"""Writes tests/data/samplers.json: logits, settings, and the probabilities that sampling should have, in float64.

    python3 tools/reference/samplers.py > tests/data/samplers.json

Each step is written from its definition, over dictionaries of all tokens, with nothing but the standard library:
penalties as transformers (repetition) and OpenAI (frequency, presence) define them, DRY and XTC as their author did for
text-generation-webui (pull requests 5677 and 6335), top-k, top-p, min-p and typical as transformers' logits warpers.
All settings are numbers that float32 has exactly.
"""

import json
import math
import random

INFINITY = float("inf")


def softmax(scores):
    largest = max(scores.values())
    weights = {token: math.exp(score - largest) for token, score in scores.items() if score > -INFINITY}
    total = math.fsum(weights.values())
    return {token: weight / total for token, weight in weights.items()}


def likeliest_first(probabilities):
    return sorted(probabilities, key=lambda token: (-probabilities[token], token))


def penalise(scores, prompt, output, window, repetition, frequency, presence):
    history = [(token, False) for token in prompt] + [(token, True) for token in output]
    if window:
        history = history[-window:]
    for token in {token for token, _ in history}:
        score = scores[token]
        score = score * repetition if score < 0 else score / repetition
        count = sum(1 for other, is_output in history if other == token and is_output)
        scores[token] = score - frequency * count - presence * (count > 0)


def dry(scores, tokens, window, multiplier, base, allowed_length, breakers):
    if window:
        tokens = tokens[-window:]
    if not tokens or tokens[-1] in breakers:
        return
    longest = {}
    for successor in range(1, len(tokens)):
        token = tokens[successor]
        if token in breakers:
            continue
        length = 0
        while length < 50:
            before, at_end = successor - 1 - length, len(tokens) - 1 - length
            if before < 0 or tokens[before] != tokens[at_end] or tokens[at_end] in breakers:
                break
            length += 1
        if length:
            longest[token] = max(length, longest.get(token, 0))
    for token, length in longest.items():
        if length >= allowed_length:
            scores[token] -= multiplier * base ** (length - allowed_length)


def top_k(scores, k):
    if 0 < k < len(scores):
        least = sorted(scores.values(), reverse=True)[k - 1]
        return {token: score for token, score in scores.items() if score >= least}
    return scores


def top_p(scores, p):
    """A token goes if the tokens from the least likely up to it have at most 1 - p together."""
    if p >= 1:
        return scores
    probabilities = softmax(scores)
    order = likeliest_first(probabilities)
    gone, mass = set(), 0.0
    for token in reversed(order[1:]):
        mass += probabilities[token]
        if mass > 1 - p:
            break
        gone.add(token)
    return {token: scores[token] for token in order if token not in gone}


def min_p(scores, p):
    probabilities = softmax(scores)
    limit = p * max(probabilities.values())
    return {token: scores[token] for token, probability in probabilities.items() if probability >= limit}


def typical(scores, p):
    if p >= 1:
        return scores
    probabilities = softmax(scores)
    entropy = -math.fsum(q * math.log(q) for q in probabilities.values() if q > 0)
    distance = {token: abs(-math.log(q) - entropy) for token, q in probabilities.items() if q > 0}
    order = sorted(distance, key=distance.get)
    mass, last = 0.0, order[-1]
    for token in order:
        mass += probabilities[token]
        if mass >= p:
            last = token
            break
    # Equal probabilities are equally near, however the logarithms are rounded.
    limit = distance[last] + 1e-12
    return {token: scores[token] for token in order if distance[token] <= limit}


def xtc(scores, threshold, exempt):
    probabilities = softmax(scores)
    order = likeliest_first(probabilities)
    gone = {token for token, following in zip(order, order[1:]) if probabilities[following] >= threshold}
    if gone & set(exempt):
        return scores
    return {token: scores[token] for token in order if token not in gone}


def distribution(case):
    options = {**DEFAULTS, **case["options"]}
    scores = dict(enumerate(case["logits"]))
    window = options["penalty_window"]
    prompt, output = case["prompt"], case["output"]
    penalise(scores, prompt, output, window, options["repetition_penalty"], options["frequency_penalty"],
             options["presence_penalty"])
    for token, bias in options["logit_bias"].items():
        scores[int(token)] += bias
    if options["dry_multiplier"]:
        dry(scores, prompt + output, window, options["dry_multiplier"], options["dry_base"],
            options["dry_allowed_length"], set(case["dry_breakers"]))
    if case["allowed"] is not None:
        scores = {token: scores[token] for token in case["allowed"]}
    if options["temperature"] == 0:
        largest = max(scores.values())
        return {min(token for token, score in scores.items() if score == largest): 1.0}
    scores = {token: score / options["temperature"] for token, score in scores.items()}
    scores = top_k(scores, options["top_k"])
    scores = top_p(scores, options["top_p"])
    scores = min_p(scores, options["min_p"])
    scores = typical(scores, options["typical_p"])
    if options["xtc_probability"] == 1:
        scores = xtc(scores, options["xtc_threshold"], case["xtc_exempt"])
    return softmax(scores)


DEFAULTS = {
    "temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0, "typical_p": 1.0, "xtc_probability": 0.0,
    "xtc_threshold": 0.125, "repetition_penalty": 1.0, "presence_penalty": 0.0, "frequency_penalty": 0.0,
    "penalty_window": 0, "logit_bias": {}, "dry_multiplier": 0.0, "dry_base": 1.75, "dry_allowed_length": 2,
}
LOGITS = [2.0, 1.5, 1.25, 1.0, 0.5, 0.0, -0.5, -1.0, 1.5, -3.0]


def case(name, options, prompt=(), output=(), logits=LOGITS, breakers=(), exempt=(), allowed=None):
    return {
        "name": name, "logits": list(logits), "prompt": list(prompt), "output": list(output),
        "dry_breakers": sorted(breakers), "xtc_exempt": sorted(exempt), "allowed": allowed, "options": options,
    }


def by_hand():
    dry = {"dry_multiplier": 0.75}
    xtc = {"xtc_probability": 1.0}
    yield case("plain", {})
    yield case("greedy", {"temperature": 0.0})
    yield case("greedy of allowed tokens", {"temperature": 0.0}, allowed=[3, 5, 9])
    yield case("temperature", {"temperature": 0.5})
    yield case("top-k", {"top_k": 3})
    yield case("top-k with a tie at its end", {"top_k": 2})
    yield case("top-p", {"top_p": 0.75})
    yield case("top-p of next to nothing", {"top_p": 0.0078125})
    yield case("min-p", {"min_p": 0.25})
    yield case("typical", {"typical_p": 0.5})
    yield case("typical of nearly all", {"typical_p": 0.9375})
    yield case("typical does not begin with the likeliest", {"typical_p": 0.25}, logits=[3.0, 2.75, 2.75, 0.0, 0.0, 0.0])
    yield case("all truncations", {"temperature": 1.5, "top_k": 8, "top_p": 0.875, "min_p": 0.125, "typical_p": 0.75})
    yield case("repetition", {"repetition_penalty": 1.25}, prompt=[0, 7, 0], output=[3])
    yield case("frequency and presence", {"frequency_penalty": 0.25, "presence_penalty": 0.5}, prompt=[0], output=[1, 1, 2])
    yield case("penalties in a window", {"repetition_penalty": 1.5, "frequency_penalty": 0.5, "penalty_window": 3},
               prompt=[0, 1], output=[2, 3, 3])
    yield case("bias after penalties", {"repetition_penalty": 2.0, "logit_bias": {"0": 3.0, "7": -2.0}}, prompt=[0, 7])
    yield case("dry: repetition of two", dry, prompt=[1, 2, 3, 5], output=[1, 2])
    yield case("dry: repetition of three costs more", dry, prompt=[4, 1, 2, 3, 5], output=[4, 1, 2])
    yield case("dry: the longest of two repetitions", dry, prompt=[1, 2, 3, 5, 4, 1, 2, 3, 6], output=[4, 1, 2])
    yield case("dry: two tokens have followed", dry, prompt=[1, 2, 3, 4, 1, 2, 8], output=[1, 2])
    yield case("dry: repetition of one is free", dry, prompt=[1, 2, 3], output=[5, 2])
    yield case("dry: of one with allowed length one", {**dry, "dry_allowed_length": 1}, prompt=[1, 2, 3], output=[5, 2])
    yield case("dry: a breaker inside", dry, prompt=[4, 1, 2, 3, 5], output=[4, 1, 2], breakers=[1])
    yield case("dry: a breaker at the end", dry, prompt=[4, 1, 2, 3, 5], output=[4, 1, 2], breakers=[2])
    yield case("dry: a breaker follows", dry, prompt=[4, 1, 2, 3, 5], output=[4, 1, 2], breakers=[3])
    yield case("dry: one token over and over", dry, prompt=[3], output=[3] * 5)
    yield case("dry: no more than fifty", {"dry_multiplier": 0.125, "dry_base": 1.0625}, output=[3] * 70)
    yield case("dry: the window forgets", {**dry, "penalty_window": 4}, prompt=[1, 2, 3, 5], output=[1, 2])
    yield case("xtc", xtc)
    yield case("xtc: one above the threshold", {**xtc, "xtc_threshold": 0.25})
    yield case("xtc: none above the threshold", {**xtc, "xtc_threshold": 0.5})
    yield case("xtc: an exempt token would go", xtc, exempt=[1])
    yield case("xtc: an exempt token stays anyway", xtc, exempt=[5])
    yield case("xtc: equals", {**xtc, "xtc_threshold": 0.0625}, logits=[1.0, 1.0, 1.0, 0.0, -1.0])
    yield case("xtc after truncation", {**xtc, "top_k": 4, "xtc_threshold": 0.1875})
    yield case("allowed tokens", {"top_k": 2}, allowed=[4, 5, 6, 7])
    yield case("one allowed token", {"top_p": 0.5, "xtc_probability": 1.0}, allowed=[9])


def at_random(count):
    dice = random.Random(6)
    for index in range(count):
        size = dice.randrange(2, 40)
        # Distinct logits: how a sampler orders equals is not part of its definition.
        logits = [value / 32 for value in dice.sample(range(-160, 160), size)]
        history = [dice.randrange(min(size, 5)) for _ in range(dice.randrange(0, 60))]
        cut = dice.randrange(len(history) + 1)
        options = {"temperature": dice.choice([0.5, 0.75, 1.0, 1.5])}
        for name, values in [
            ("top_k", [0, 3, 10]), ("top_p", [0.5, 0.75, 0.9375, 1.0]), ("min_p", [0.0, 0.0625, 0.25]),
            ("typical_p", [0.375, 0.875, 1.0, 1.0]), ("xtc_probability", [0.0, 1.0]), ("xtc_threshold", [0.0625, 0.1875]),
            ("repetition_penalty", [1.0, 1.25]), ("presence_penalty", [0.0, 0.375]), ("frequency_penalty", [0.0, 0.125]),
            ("penalty_window", [0, 0, 7, 30]), ("dry_multiplier", [0.0, 0.5]), ("dry_base", [1.25, 1.75]),
            ("dry_allowed_length", [1, 2, 3]),
        ]:
            options[name] = dice.choice(values)
        some = lambda most: dice.sample(range(size), dice.randrange(min(size, most) + 1))
        options["logit_bias"] = {str(token): dice.randrange(-64, 64) / 32 for token in some(3)}
        allowed = sorted(dice.sample(range(size), dice.randrange(1, size + 1))) if dice.random() < 0.3 else None
        yield case(f"random {index}", options, history[:cut], history[cut:], logits, some(2), some(2), allowed)


def main():
    cases = [*by_hand(), *at_random(160)]
    for one in cases:
        probabilities = distribution(one)
        one["probabilities"] = [probabilities.get(token, 0.0) for token in range(len(one["logits"]))]
    print("[")
    print(",\n".join(json.dumps(one) for one in cases))
    print("]")


if __name__ == "__main__":
    main()
