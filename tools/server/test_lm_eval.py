"""A tiny task of ours by lm-evaluation-harness, through its client of completions."""

from pathlib import Path

import lm_eval

from serving import KEY, ROOT

TASK = {
    "task": "capitals",
    "dataset_path": "json",
    "dataset_kwargs": {"data_files": {"test": str(Path(__file__).parent / "tasks/capitals.jsonl")}},
    "test_split": "test",
    "output_type": "multiple_choice",
    "doc_to_text": "{{question}}",
    "doc_to_choice": "{{choices}}",
    "doc_to_target": "{{answer}}",
    "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
}


def test_a_task_is_scored(server, model, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    scored = lm_eval.simple_evaluate(
        model="local-completions",
        model_args={
            "model": model,
            "base_url": f"{server}/v1/completions",
            "tokenizer_backend": "huggingface",
            "tokenizer": str(ROOT / "models/demo"),
            "num_concurrent": 2,
        },
        tasks=[TASK],
        bootstrap_iters=0,
    )
    # The demo knows what its corpus says; guessing gives a third.
    assert scored["results"]["capitals"]["acc,none"] >= 0.75
    assert len(scored["samples"]["capitals"]) == 8
