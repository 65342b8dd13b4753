//! `moeflux run`.

use std::fs;

use serde_json::json;

use crate::cli::{Result, moeflux, moeflux_with, root};

const QUESTION: &str = "What is 17 + 25?";
const ANSWER: &str = "17 + 25 = 42.\n";

#[test]
fn the_first_command_of_the_readme() -> Result<()> {
    let readme = fs::read_to_string(root().join("README.md"))?;
    let command = "cargo run --release -- run \"What is 17 + 25?\" --temperature 0";
    let first = readme.lines().find(|line| line.starts_with("cargo "));
    assert_eq!(first, Some(command));
    assert_eq!(moeflux(&["run", QUESTION, "--temperature", "0"])?.text(), ANSWER);
    Ok(())
}

#[test]
fn model_and_prompt_from_everywhere() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("question.txt");
    fs::write(&file, format!("{QUESTION}\n"))?;
    let file = file.to_str().ok_or("a path in UTF-8")?;
    for args in [
        &["models/demo", QUESTION][..],
        &["-m", "models/demo", QUESTION],
        &["models/demo", "--file", file],
        &["--file", file],
    ] {
        assert_eq!(moeflux(&[&["run", "-t", "0"], args].concat())?.text(), ANSWER, "{args:?}");
    }
    for args in [&[][..], &["models/demo"], &["-"], &["models/demo", "-"], &["-m", "models/demo"]] {
        let args = [&["run", "-t", "0"], args].concat();
        assert_eq!(moeflux_with("What is 17 + 25?\n", &args)?.text(), ANSWER, "{args:?}");
    }
    Ok(())
}

#[test]
fn json_has_the_answer_and_what_it_took() -> Result<()> {
    let json = moeflux(&["run", QUESTION, "--json", "--seed", "7", "-t", "0"])?.answer()?;
    assert_eq!(json["text"], "17 + 25 = 42.");
    assert!(json.get("reasoning").is_none());
    assert_eq!(json["stop"]["reason"], "end_of_sequence");
    assert_eq!(json["seed"], 7);
    let tokens = json["tokens"].as_array().map(Vec::len);
    // The end-of-sequence token was chosen, but is no part of the answer.
    assert_eq!(json["usage"]["completion_tokens"].as_u64(), tokens.map(|tokens| tokens as u64 + 1));
    assert!(json["timings"]["decode_tokens_per_second"].as_f64() > Some(0.0));
    assert!(json["memory"]["mapped_bytes"].as_u64() > Some(27_000_000));
    Ok(())
}

#[test]
fn thoughts_are_not_the_answer() -> Result<()> {
    let args = ["run", "--think", "What is 8 * 7?", "-t", "0"];
    let finished = moeflux(&args)?;
    assert_eq!(finished.stdout, "8 * 7 = 56.\n");
    assert_eq!(finished.stderr, "This is a sum.\n\n");
    let json = moeflux(&[&args[..], &["--json"]].concat())?.answer()?;
    assert_eq!((&json["text"], &json["reasoning"]), (&"8 * 7 = 56.".into(), &"This is a sum.".into()));
    Ok(())
}

#[test]
fn raw_text_is_continued_until_told_to_stop() -> Result<()> {
    let args = ["run", "--raw", "Once upon a time there was", "-t", "0"];
    let whole = moeflux(&[&args[..], &["--max-tokens", "12", "--json"]].concat())?.answer()?;
    assert_eq!(whole["stop"]["reason"], "max_tokens");
    assert_eq!(whole["tokens"].as_array().map(Vec::len), Some(12));
    let text = whole["text"].as_str().ok_or("a text")?;
    let word = text.split_whitespace().nth(3).ok_or("four words")?;
    let (before, _) = text.split_once(word).ok_or("the word itself")?;
    let stopped =
        moeflux(&[&args[..], &["--max-tokens", "12", "--json", "--stop", word]].concat())?.answer()?;
    assert_eq!((&stopped["text"], &stopped["stop"]["string"]), (&before.into(), &word.into()));
    Ok(())
}

#[test]
fn a_saved_state_saves_reading_again() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("state");
    let file = file.to_str().ok_or("a path in UTF-8")?;
    let first = moeflux(&["run", QUESTION, "--json", "-t", "0", "--save", file])?.answer()?;
    let other = ["run", "What is 17 + 26?", "--json", "-t", "0"];
    for args in [&["run", QUESTION, "--json", "-t", "0"], &other[..]] {
        let afresh = moeflux(args)?.answer()?;
        let resumed = moeflux(&[args, &["--resume", file]].concat())?.answer()?;
        assert_eq!(resumed["text"], afresh["text"]);
        let read = |json: &serde_json::Value| json["usage"]["prompt_tokens"].as_u64();
        assert!(read(&resumed) < read(&afresh), "{resumed}");
    }
    assert_eq!(first["text"], "17 + 25 = 42.");
    fs::write(file, "something else")?;
    moeflux(&[&other[..], &["--resume", file]].concat())?.fails_with(&[file, "expected a snapshot"]);
    Ok(())
}

#[test]
fn same_seed_same_text() -> Result<()> {
    let story = |seed| {
        let args = [
            "run",
            "Tell me a story.",
            "-t",
            "1.5",
            "--top-p",
            "1",
            "--top-k",
            "0",
            "--max-tokens",
            "40",
            "--seed",
            seed,
        ];
        Ok::<_, Box<dyn std::error::Error>>(moeflux(&args)?.text().to_owned())
    };
    let first = story("5")?;
    assert_eq!(story("5")?, first);
    assert_ne!(story("6")?, first);
    Ok(())
}

#[test]
fn stats_go_to_stderr() -> Result<()> {
    let finished = moeflux(&["run", QUESTION, "-t", "0", "--stats"])?;
    assert_eq!((finished.code, finished.stdout.as_str()), (Some(0), ANSWER));
    for word in ["prompt", "answer", "first token", "after the start", "memory", "seed", "end of sequence"] {
        assert!(finished.stderr.contains(word), "{word:?} is not in {finished:?}");
    }
    Ok(())
}

#[test]
fn sampling_values_that_make_no_sense() -> Result<()> {
    for (flag, value) in [
        ("temperature", "NaN"),
        ("temperature", "-1"),
        ("temperature", "inf"),
        ("top-p", "nan"),
        ("top-p", "-0.5"),
        ("top-p", "1.5"),
        ("min-p", "NaN"),
        ("min-p", "-1"),
        ("repetition-penalty", "NaN"),
        ("repetition-penalty", "-1"),
        ("presence-penalty", "NaN"),
        ("frequency-penalty", "inf"),
        ("typical-p", "0"),
        ("xtc-probability", "2"),
        ("xtc-threshold", "-1"),
        ("dry-multiplier", "-1"),
        ("dry-base", "0.5"),
        ("logit-bias", "1=NaN"),
        ("logit-bias", "4096=1"),
    ] {
        let finished = moeflux(&["run", QUESTION, &format!("--{flag}"), value])?;
        finished.fails_with(&[&flag.replace('-', "_"), "should be", "found"]);
    }
    Ok(())
}

#[test]
fn answers_of_a_given_form() -> Result<()> {
    let schema = json!({
        "type": "object",
        "properties": { "sum": { "type": "integer", "minimum": 0, "maximum": 99 } },
        "required": ["sum"],
        "additionalProperties": false,
    });
    let folder = tempfile::tempdir()?;
    let (file, grammar) = (folder.path().join("schema.json"), folder.path().join("answer.lark"));
    fs::write(&file, schema.to_string())?;
    fs::write(&grammar, "start: \"It is \" /[0-9]{2}/ \".\"")?;
    let path = |path: &std::path::Path| path.to_str().map(str::to_owned).ok_or("a path in UTF-8");
    for schema in [schema.to_string(), path(&file)?] {
        let finished = moeflux(&["run", QUESTION, "-t", "1", "--json-schema", &schema])?;
        let answer: serde_json::Value = serde_json::from_str(finished.text())?;
        assert!(answer["sum"].as_u64() < Some(100), "{answer}");
    }
    let finished = moeflux(&["run", QUESTION, "-t", "1", "--regex", "(no|yes)!"])?;
    assert!(["no!\n", "yes!\n"].contains(&finished.text()), "{finished:?}");
    let finished = moeflux(&["run", QUESTION, "-t", "1", "--grammar", &path(&grammar)?])?;
    assert!(finished.text().starts_with("It is ") && finished.text().len() == 10, "{finished:?}");

    moeflux(&["run", QUESTION, "--json-schema", "{\"type\": 3}"])?.fails_with(&["JSON schema", "type"]);
    moeflux(&["run", QUESTION, "--json-schema", "no-such-file"])?.fails_with(&["no-such-file"]);
    moeflux(&["run", QUESTION, "--regex", "a(b"])?.fails_with(&["regular expression"]);
    moeflux(&["run", QUESTION, "--regex", "a", "--ignore-eos"])?.fails_with(&["ignore_eos", "expected"]);
    Ok(())
}

#[test]
fn several_answers_and_their_probabilities() -> Result<()> {
    let args = [
        "run",
        "Tell me a story.",
        "-t",
        "1",
        "--json",
        "--seed",
        "5",
        "--max-tokens",
        "8",
        "--logprobs",
        "2",
    ];
    let answers = moeflux(&[&args[..], &["--n", "3"]].concat())?.json()?["answers"].take();
    let answers = answers.as_array().ok_or("a list")?;
    assert_eq!(answers.len(), 3);
    assert_eq!(
        answers.iter().map(|answer| answer["seed"].as_u64()).collect::<Vec<_>>(),
        [Some(5), Some(6), Some(7)]
    );
    // They are computed together, and shown one after the other.
    let shown =
        moeflux(&["run", "Tell me a story.", "-t", "1", "--seed", "5", "--max-tokens", "8", "--n", "3"])?;
    let texts: Option<Vec<&str>> = answers.iter().map(|answer| answer["text"].as_str()).collect();
    assert_eq!(shown.output(), texts.ok_or("texts")?.join("\n") + "\n");
    assert_eq!(shown.notes(), "[1 of 3, seed 5]\n[2 of 3, seed 6]\n[3 of 3, seed 7]\n");
    let alone = moeflux(&[&args[..], &["--prompt-logprobs", "1"]].concat())?.answer()?;
    assert_eq!((&alone["text"], &alone["logprobs"]), (&answers[0]["text"], &answers[0]["logprobs"]));
    let logprobs = alone["logprobs"].as_array().ok_or("a list")?;
    assert_eq!((logprobs.len(), logprobs[0]["top_logprobs"].as_array().map(Vec::len)), (8, Some(2)));
    assert!(logprobs.iter().all(|token| token["logprob"].as_f64() <= Some(0.0)));
    let prompt = alone["prompt_logprobs"].as_array().ok_or("a list")?;
    assert_eq!(Some(prompt.len() as u64), alone["usage"]["prompt_tokens"].as_u64());
    assert!(prompt[0]["logprob"].is_null() && prompt[1]["logprob"].is_f64());
    moeflux(&["run", QUESTION, "--json", "--logprobs", "21"])?.fails_with(&["logprobs", "at most 20", "21"]);
    Ok(())
}

#[test]
fn short_thoughts_and_long_answers() -> Result<()> {
    let args = ["run", "--think", "What is 8 * 7?", "-t", "0", "--json"];
    let json = moeflux(&[&args[..], &["--reasoning-budget", "2"]].concat())?.answer()?;
    let reasoning = json["reasoning"].as_str().ok_or("a text")?;
    assert!("This is a sum.".starts_with(reasoning) && reasoning.len() < 14, "{reasoning}");
    let json = moeflux(&["run", QUESTION, "-t", "0", "--json", "--min-tokens", "30", "--max-tokens", "40"])?
        .answer()?;
    assert!(json["usage"]["completion_tokens"].as_u64() > Some(30));
    Ok(())
}

#[test]
fn a_model_that_is_not_there() -> Result<()> {
    moeflux(&["run", "no/such/model", QUESTION])?.fails_with(&["no/such/model", "neither a folder"]);
    moeflux(&["run", "-m", "no/such/model", QUESTION])?.fails_with(&["no/such/model", "neither a folder"]);
    moeflux(&["run", "no/such/model"])?.fails_with(&["no/such/model", "no such folder", "-m MODEL"]);
    moeflux(&["run", "crates/moeflux", QUESTION])?.fails_with(&["crates/moeflux/config.json"]);
    Ok(())
}

#[test]
fn prompts_that_cannot_be() -> Result<()> {
    moeflux(&["run", ""])?.fails_with(&["no prompt"]);
    moeflux_with(" \n", &["run"])?.fails_with(&["no prompt"]);
    moeflux_with("", &["run", "--raw"])?.fails_with(&["no prompt"]);
    moeflux(&["run", "--file", "no-such-file"])?.fails_with(&["no-such-file", "No such file"]);
    moeflux(&["run", "models/demo", "Hello", "--file", "README.md"])?.fails_with(&["twice"]);
    moeflux(&["run", "-m", "models/demo", "models/demo", "Hello"])?.fails_with(&["two models"]);
    let long = "a story ".repeat(20_000);
    moeflux_with(&long, &["run"])?.fails_with(&["32768"]);
    Ok(())
}

#[test]
fn other_options_that_cannot_be() -> Result<()> {
    moeflux(&["run", QUESTION, "--threads", "0"])?.fails_with(&["threads", "at least 1", "found 0"]);
    moeflux(&["run", QUESTION, "--stop", ""])?.fails_with(&["stop string", "empty"]);
    moeflux(&["run", QUESTION, "--tools", "README.md"])?.fails_with(&["README.md"]);
    moeflux(&["run", QUESTION, "--tools", "models/demo/config.json"])?
        .fails_with(&["config.json", "JSON list"]);
    Ok(())
}

#[cfg(unix)]
mod unix {
    use std::io::Read;

    use crate::cli::{Result, command, finished};
    use crate::signal::{self, Signal};

    const ENDLESS: [&str; 6] = ["run", "Tell me a story.", "--ignore-eos", "--stats", "-t", "0"];

    #[test]
    fn ctrl_c_keeps_what_came() -> Result<()> {
        let mut child = command(&ENDLESS).spawn()?;
        let mut first = [0; 4];
        child.stdout.as_mut().ok_or("stdout is piped")?.read_exact(&mut first)?;
        signal::send(Signal::INT, &child);
        let finished = finished(child.wait_with_output()?)?;
        assert_eq!(finished.code, Some(130), "{finished:?}");
        assert!(finished.stdout.ends_with('\n'), "{finished:?}");
        assert!(finished.stderr.contains("stopped at   Ctrl-C"), "{finished:?}");
        Ok(())
    }

    #[test]
    fn a_reader_that_leaves_ends_it_quietly() -> Result<()> {
        let mut child = command(&ENDLESS).spawn()?;
        let mut first = [0; 4];
        child.stdout.take().ok_or("stdout is piped")?.read_exact(&mut first)?;
        let finished = finished(child.wait_with_output()?)?;
        assert_eq!((finished.code, finished.stderr.as_str()), (Some(0), ""), "{finished:?}");
        Ok(())
    }
}

/// What is nested too deep to compile is an error, not an abort.
#[test]
fn constraints_too_deep_to_compile() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = |name: &str, text: String| -> Result<String> {
        let path = folder.path().join(name);
        fs::write(&path, text)?;
        Ok(path.to_str().ok_or("a path in UTF-8")?.to_owned())
    };
    let mut definitions = serde_json::Map::new();
    for index in 0..2000 {
        let next = json!({"$ref": format!("#/$defs/a{}", index + 1)});
        definitions.insert(format!("a{index}"), json!({"type": "object", "properties": {"x": next}}));
    }
    definitions.insert("a2000".to_owned(), json!({"type": "string"}));
    let schema = json!({"$ref": "#/$defs/a0", "$defs": definitions}).to_string();
    let rules: Vec<String> = (0..5000).map(|index| format!("r{index}: \"a\" r{}\n", index + 1)).collect();
    let rules = rules.concat();
    let groups = |n: usize| format!("{}a{}", "(".repeat(n), ")".repeat(n));
    for (flag, value, word) in [
        ("--json-schema", file("schema.json", schema)?, "levels"),
        ("--json-schema", file("deep.json", "[".repeat(100_000))?, "deep.json"),
        ("--grammar", file("rules.lark", format!("start: r0\n{rules}r5000: \"b\"\n"))?, "levels"),
        (
            "--grammar",
            file("groups.lark", format!("start: {}\n", groups(20_000).replace('a', "\"a\"")))?,
            "levels",
        ),
        ("--grammar", file("regex.lark", format!("start: /{}/\n", groups(20_000)))?, "groups"),
        ("--regex", groups(20_000), "groups"),
        ("--regex", format!("{}a{}", "(?:".repeat(150), "{1,9})".repeat(150)), "regular expression"),
    ] {
        let finished = moeflux(&["run", QUESTION, "-t", "0", flag, &value, "--max-tokens", "2"])?;
        finished.fails_with(&[word]);
    }
    Ok(())
}
