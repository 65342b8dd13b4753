//! Streaming experts, as a user sees it.

use std::fs;

use crate::cli::{Result, moeflux};
use crate::property;

const ASK: [&str; 6] = ["run", "What is 17 + 25?", "--temperature", "0", "--threads", "2"];

fn ask(more: &[&str]) -> Result<crate::cli::Finished> {
    moeflux(&[&ASK, more].concat())
}

#[test]
fn a_small_budget_gives_the_same_answer() -> Result<()> {
    let mapped = ask(&["--json"])?.answer()?;
    assert!(mapped["experts"].is_null());
    for more in [
        &["--expert-budget", "5%", "--hints", "off"][..],
        &["--expert-budget", "2M", "--policy", "lru", "--io", "buffered"],
        &["--expert-budget", "100%", "--hints", "lookahead"],
    ] {
        let streamed = ask(&[&["--json"], more].concat())?.answer()?;
        assert_eq!(streamed["tokens"], mapped["tokens"], "{more:?}");
        let experts = &streamed["experts"];
        assert!(
            experts["misses"].as_u64() > Some(0) && experts["bytes_read"].as_u64() > Some(0),
            "{experts}"
        );
        assert!(experts["used_bytes"].as_u64() <= experts["budget_bytes"].as_u64(), "{experts}");
    }
    let finished = ask(&["--expert-budget", "50%", "--stats"])?;
    for piece in ["experts      hits ", "stalls ", "budget "] {
        assert!(finished.stderr.contains(piece), "{finished:?}");
    }
    Ok(())
}

#[test]
fn memory_that_cannot_be() -> Result<()> {
    ask(&["--memory", "1M"])?.fails_with(&["--memory 1.00 MiB is too little", "or more"]);
    ask(&["--expert-budget", "1K"])?.fails_with(&["1024 bytes", "too small"]);
    for wrong in [["--memory", "8X"], ["--memory", "-1"], ["--expert-budget", "120%"], ["--io", "tape"]] {
        assert_eq!(ask(&wrong)?.code, Some(2), "{wrong:?}");
    }
    Ok(())
}

#[test]
fn heat_is_kept_from_run_to_run() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let heat = folder.path().join("heat.json");
    let heat = heat.to_str().ok_or("a path of UTF-8")?;
    ask(&["--expert-budget", "30%", "--warm", heat])?.text();
    let first = fs::read(heat)?;
    ask(&["--expert-budget", "30%", "--warm", heat])?.text();
    assert!(fs::read(heat)? != first);
    fs::write(heat, "{}")?;
    ask(&["--expert-budget", "30%", "--warm", heat])?.fails_with(&["heat.json"]);
    Ok(())
}

#[test]
fn heat_is_kept_in_the_cache_folder_if_asked() -> Result<()> {
    let cache = tempfile::tempdir()?;
    let auto = || {
        let args = [&ASK[..], &["--expert-budget", "30%", "--warm", "auto"]].concat();
        crate::cli::finished(crate::cli::command(&args).env("XDG_CACHE_HOME", cache.path()).output()?)
    };
    auto()?.text();
    let files: Vec<_> =
        fs::read_dir(cache.path().join("moeflux/heat"))?.collect::<std::result::Result<_, _>>()?;
    assert!(files.len() == 1 && files[0].file_name().to_string_lossy().starts_with("demo-"), "{files:?}");
    let first = fs::read(files[0].path())?;
    auto()?.text();
    assert!(fs::read(files[0].path())? != first);
    // What another model left is no reason not to start.
    fs::write(files[0].path(), "{}")?;
    let finished = auto()?;
    assert!(finished.notes().contains("the file is ignored") && !finished.stdout.is_empty(), "{finished:?}");
    auto()?.text();
    Ok(())
}

#[test]
fn bench_stream_compares_with_the_limit() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let plot = folder.path().join("speed.svg");
    let args = ["bench", "stream", "--budgets", "5,100", "--prompt", "40", "--tokens", "6"];
    let plot_args = ["--json", "--plot", plot.to_str().ok_or("a path of UTF-8")?];
    let report = moeflux(&[&args[..], &plot_args].concat())?.json()?;
    let runs = report["runs"].as_array().ok_or("runs")?;
    assert_eq!(runs.len(), 2);
    for run in runs {
        for (phase, tokens) in [("prefill", 40), ("decode", 6)] {
            let phase = &run[phase];
            assert_eq!(phase["tokens"], tokens, "{run}");
            let of = |name: &str| phase[name].as_f64().unwrap_or(f64::NAN);
            assert!(of("tokens_per_second") > 0.0 && of("limit_tokens_per_second") > 0.0, "{run}");
            assert!(of("planned_tokens_per_second") > 0.0, "{run}");
            assert!((of("limit_seconds") / of("seconds") - of("share_of_limit")).abs() < 1e-9, "{run}");
        }
    }
    let misses = |run: &serde_json::Value| run["decode"]["experts"]["misses"].as_u64();
    assert!(misses(&runs[0]) > misses(&runs[1]), "{report}");
    assert!(report["disk"]["bytes_per_second"].as_f64() > Some(0.0), "{report}");
    assert!(fs::read_to_string(&plot)?.starts_with("<svg"));
    let table = moeflux(&args)?;
    for piece in ["budget", "prefill", "decode", "share", "disk "] {
        assert!(table.text().contains(piece), "{table:?}");
    }
    moeflux(&["bench", "stream", "--budgets", "120"])?.fails_with(&["--budgets", "120"]);
    Ok(())
}

#[test]
fn streaming_changes_no_bit_of_the_demo() -> Result<()> {
    streaming_changes_no_bit("models/demo", 80, 1)
}

#[test]
fn streaming_changes_no_bit_of_files_of_mlx() -> Result<()> {
    let folder = tempfile::tempdir()?;
    streaming_changes_no_bit(&small_35b_a3b(&folder, &[])?, 40, 2)
}

#[test]
fn streaming_changes_no_bit_of_a_pack() -> Result<()> {
    let folder = tempfile::tempdir()?;
    streaming_changes_no_bit(&small_35b_a3b(&folder, &["--pack"])?, 40, 3)
}

/// Four layers of the shape of a 35B-A3B, with narrower weights and 64 experts a layer.
fn small_35b_a3b(folder: &tempfile::TempDir, flags: &[&str]) -> Result<String> {
    let model = folder.path().join("model").to_str().map(str::to_owned).ok_or("a path of UTF-8")?;
    let make = ["bench", "make-model", "--shape", "35b-a3b-small", "--router-skew", "0.35", &model];
    moeflux(&[&make[..], flags].concat())?.output();
    Ok(model)
}

/// Compares the bits of `runs` runs with random settings; `MOEFLUX_PROPERTY_CASES` multiplies their number.
fn streaming_changes_no_bit(model: &str, runs: u32, seed: u64) -> Result<()> {
    let runs = (f64::from(runs) * property::multiplier()).ceil().max(40.0).to_string();
    let args = ["bench", "same-bits", model, "--runs", &runs, "--seed", &seed.to_string(), "--json"];
    let report = moeflux(&args)?.json()?;
    assert_eq!(report["runs"].to_string(), runs);
    let settings = report["settings"].as_object().ok_or("settings")?;
    for (setting, values) in [
        ("budget", 4),
        ("io", 3),
        ("policy", 2),
        ("hints", 4),
        ("chunk", 4),
        ("threads", 3),
        ("precision", 2),
        ("delays", 2),
        ("verify", 2),
    ] {
        let found = settings[setting].as_object().map(serde_json::Map::len);
        assert_eq!(found, Some(values), "{setting}: {report}");
    }
    for count in ["logits", "hits", "misses", "evictions", "hints_issued", "bytes_read"] {
        assert!(report[count].as_u64() > Some(0), "{count}: {report}");
    }
    Ok(())
}

#[test]
fn plan_says_whether_it_fits() -> Result<()> {
    let fits = moeflux(&["plan", "--json"])?.json()?;
    assert_eq!((&fits["streamed"], fits["hit_rate"].as_f64()), (&false.into(), Some(1.0)));
    let streams = moeflux(&["plan", "--expert-budget", "25%", "--json"])?.json()?;
    assert_eq!(streams["streamed"], true);
    let hits = streams["hit_rate"].as_f64().ok_or("a hit rate")?;
    assert!((0.2..0.3).contains(&hits), "{streams}");
    for phase in ["decode", "prefill"] {
        assert!(streams[phase]["tokens_per_second"].as_f64() > Some(0.0), "{streams}");
        assert!(streams[phase]["read_bytes"].as_f64() > fits[phase]["read_bytes"].as_f64(), "{streams}");
    }
    let text = moeflux(&["plan", "--expert-budget", "25%"])?;
    for piece in ["streams ", "hit rate ", "decode ", "tokens/s", "choices ", "best      --device "] {
        assert!(text.text().contains(piece), "{text:?}");
    }
    let choices = fits["choices"].as_array().ok_or("choices")?;
    assert!(choices.iter().any(|choice| choice["device"] == "cpu"), "{fits}");
    assert_eq!(fits["best"], format!("--device {}", fits["device"].as_str().ok_or("a device")?));
    let cpu = moeflux(&["plan", "--device", "cpu", "--json"])?.json()?;
    assert_eq!((&cpu["device"], cpu["choices"].as_array().map(Vec::len)), (&"cpu".into(), Some(1)));
    Ok(())
}

#[test]
fn a_recorded_trace_can_be_replayed() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("trace.jsonl");
    let path = path.to_str().ok_or("a path of UTF-8")?;
    for more in [&[][..], &["--expert-budget", "20%"]] {
        let args = ["trace", "record", "What is 17 + 25?", "-t", "0", "--max-tokens", "4", "-o", path];
        let recorded = moeflux(&[&args, more].concat())?;
        assert!(
            recorded.code == Some(0) && recorded.stderr.contains("tokens prefilled, 4 generated"),
            "{recorded:?}"
        );
        let steps: Vec<u64> = fs::read_to_string(path)?
            .lines()
            .skip(1)
            .map(|line| serde_json::from_str::<(u64, u32, Vec<u32>)>(line).map(|entry| entry.0))
            .collect::<std::result::Result<_, _>>()?;
        // The prompt's step, and one for each token but the last, in eight layers.
        assert_eq!((steps.len(), steps.last()), (4 * 8, Some(&3)), "{more:?}");
        assert!(moeflux(&["trace", "replay", path])?.text().contains("OPTIMUM"));
    }
    Ok(())
}
