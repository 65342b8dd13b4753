//! `moeflux trace`.

use super::{Result, moeflux};

/// Two experts take turns in a layer of four.
fn trace_file() -> Result<tempfile::NamedTempFile> {
    let header =
        r#"{"format":"moeflux-trace","version":1,"layers":[{"name":"layers.0","experts":4,"bytes":100}]}"#;
    let entries: Vec<String> = (0..10).map(|step| format!("[{step},0,[{}]]", step % 2)).collect();
    let file = tempfile::NamedTempFile::new()?;
    std::fs::write(&file, format!("{header}\n{}\n", entries.join("\n")))?;
    Ok(file)
}

#[test]
fn a_replay_prints_hit_rates() -> Result<()> {
    let file = trace_file()?;
    let path = file.path().display().to_string();
    let text = moeflux(&["trace", "replay", &path, "--budgets", "25,50"])?;
    let expected = "\
10 uses of 400 B of experts

BUDGET         BYTES      LRU     LFRU  OPTIMUM
   25 %        100 B    0.0 %    0.0 %   40.0 %
   50 %        200 B   80.0 %   80.0 %   80.0 %
";
    assert_eq!(text.text(), expected);
    let json: serde_json::Value =
        serde_json::from_str(moeflux(&["trace", "replay", &path, "--json"])?.text())?;
    assert_eq!(json["budgets"][3]["policies"][2]["policy"], "optimum");
    assert_eq!(json["budgets"][3]["policies"][2]["bytes_read"], 200);
    Ok(())
}

#[test]
fn what_is_no_trace_is_refused() -> Result<()> {
    let file = trace_file()?;
    let path = file.path().display().to_string();
    assert_eq!(moeflux(&["trace", "replay", &path, "--budgets", "0"])?.code, Some(2));
    std::fs::write(&file, "{}")?;
    let finished = moeflux(&["trace", "replay", &path])?;
    assert_eq!(finished.code, Some(1));
    assert!(
        finished.stderr.contains(&path) && finished.stderr.contains("line 1: missing field"),
        "{finished:?}"
    );
    Ok(())
}
