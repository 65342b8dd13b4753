//! `moeflux eval`: perplexity of a text.

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Args;
use moeflux::Engine;
use serde::Serialize;

use crate::model_args::{EngineArgs, ModelArgs};
use crate::progress::Progress;
use crate::terminal;

/// Logits of so many tokens are held at once: `[SCORED_AT_ONCE, vocab_size]` floats.
const SCORED_AT_ONCE: usize = 64;

/// Arguments of `eval`.
#[derive(Args)]
#[command(override_usage = "moeflux eval [OPTIONS] [MODEL] FILE")]
pub(crate) struct EvalArgs {
    /// Text, in UTF-8. A model (a folder, a GGUF file or a name) may stand before it [default: the demo in models/demo].
    /// Special tokens in the text are recognised; none is added
    #[arg(value_name = "[MODEL] FILE", num_args = 1..=2, required = true)]
    paths: Vec<PathBuf>,
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    engine: EngineArgs,
    /// Number of tokens that the model reads at once [default: 2048, or the model's context if it is shorter]
    #[arg(long, value_name = "N", help_heading = "Scoring")]
    window: Option<usize>,
    /// Number of tokens from the start of one window to the next. Each token is scored once, in the first window that
    /// contains it [default: half the window]
    #[arg(long, value_name = "N", help_heading = "Scoring")]
    stride: Option<usize>,
    /// Print one JSON object
    #[arg(long, help_heading = "Output")]
    json: bool,
}

/// What `eval` found.
#[derive(Serialize)]
struct Score {
    /// Tokens of the text.
    tokens: usize,
    /// Tokens scored: all but the first, which nothing precedes.
    scored: usize,
    window: usize,
    stride: usize,
    /// Mean negative log-likelihood of a scored token, in nats.
    mean_nll: f64,
    /// `exp(mean_nll)`.
    perplexity: f64,
}

/// A window over a text's tokens.
#[derive(Debug, PartialEq, Eq)]
struct Window {
    begin: usize,
    /// The tokens that this window is the first to score; the ones before are their context.
    scored: Range<usize>,
}

/// Runs the command.
pub(crate) fn run(args: &EvalArgs) -> Result<()> {
    let (text, model) =
        args.paths.split_last().context("no text is given: name a file, as in `moeflux eval FILE`")?;
    let mut engine = args.engine.engine(args.model.open(model.first().map(PathBuf::as_path))?)?;
    let tokens = read_tokens(text, &engine)?;
    let context = engine.model().context_length();
    let window = args.window.unwrap_or(context.min(2048));
    let stride = args.stride.unwrap_or((window / 2).max(1));
    if !(2..=context).contains(&window) {
        bail!("--window: expected 2 to {context} (the model's context), found {window}");
    }
    if !(1..=window).contains(&stride) {
        bail!("--stride: expected 1 to {window} (the window), found {stride}");
    }

    let (mut nll, mut scored) = (0.0, 0);
    let mut progress = Progress::new("scoring");
    for window in windows(tokens.len(), window, stride) {
        nll += window_nll(&mut engine, &tokens, &window)?;
        scored += window.scored.len();
        progress.set(window.scored.end, tokens.len());
    }
    progress.clear();

    let mean_nll = nll / scored as f64;
    let score = Score { tokens: tokens.len(), scored, window, stride, mean_nll, perplexity: mean_nll.exp() };
    terminal::show(&if args.json { terminal::json(&score)? } else { table(&score) })?;
    Ok(())
}

fn table(score: &Score) -> String {
    let Score { tokens, scored, window, stride, mean_nll, perplexity } = score;
    format!(
        "tokens      {tokens} ({scored} scored, in windows of {window} every {stride})\n\
         mean nll    {mean_nll:.6} nats\n\
         perplexity  {perplexity:.6}\n"
    )
}

fn read_tokens(path: &Path, engine: &Engine) -> Result<Vec<u32>> {
    if path.is_dir() {
        let path = path.display();
        bail!(
            "{path} is a folder: name a text, after the model if there is one, as in `moeflux eval {path} text.txt`"
        );
    }
    let text = fs::read_to_string(path).with_context(|| format!("reading the text {}", path.display()))?;
    let tokens = engine.model().tokenizer().encode(&text)?;
    if tokens.len() < 2 {
        bail!("{}: expected at least 2 tokens to score, found {}", path.display(), tokens.len());
    }
    Ok(tokens)
}

/// Windows of `window` tokens every `stride` tokens, until one reaches the end.
fn windows(n_tokens: usize, window: usize, stride: usize) -> impl Iterator<Item = Window> {
    let mut next = Some((0, 1));
    std::iter::from_fn(move || {
        let (begin, first): (usize, usize) = next?;
        let end = n_tokens.min(begin + window);
        next = (end < n_tokens).then_some((begin + stride, end));
        Some(Window { begin, scored: first.max(begin + 1)..end })
    })
}

/// Sum of the negative log-likelihoods of the window's scored tokens, in nats.
fn window_nll(engine: &mut Engine, tokens: &[u32], window: &Window) -> Result<f64> {
    let mut sequence = engine.sequence();
    // The logits at a token score the next one.
    let predictors = window.scored.start - 1..window.scored.end - 1;
    if window.begin < predictors.start {
        engine.eval(&mut sequence, &tokens[window.begin..predictors.start])?;
    }
    let vocab_size = engine.model().config().vocab_size();
    let mut nll = 0.0;
    for piece in
        tokens[predictors.start..=predictors.end].windows(2).collect::<Vec<_>>().chunks(SCORED_AT_ONCE)
    {
        let (inputs, targets): (Vec<u32>, Vec<u32>) = piece.iter().map(|pair| (pair[0], pair[1])).unzip();
        let logits = engine.eval_all(&mut sequence, &inputs)?;
        nll +=
            logits.chunks(vocab_size).zip(targets).map(|(row, target)| token_nll(row, target)).sum::<f64>();
    }
    Ok(nll)
}

/// `-log softmax(logits)[target]`, in float64.
fn token_nll(logits: &[f32], target: u32) -> f64 {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|&logit| f64::from(logit - max).exp()).sum();
    sum.ln() - f64::from(logits[target as usize] - max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_token_but_the_first_is_scored_once_with_context() {
        for n_tokens in 2..40 {
            for window in 2..20 {
                for stride in 1..=window {
                    let mut scored = vec![0; n_tokens];
                    for Window { begin, scored: range } in windows(n_tokens, window, stride) {
                        assert!(begin < range.start && range.end - begin <= window);
                        range.for_each(|token| scored[token] += 1);
                    }
                    // Windows that only touch have a first token that nothing precedes.
                    let unseen =
                        |token: usize| token == 0 || (stride == window && token.is_multiple_of(window));
                    for (token, times) in scored.into_iter().enumerate() {
                        assert_eq!(
                            times,
                            usize::from(!unseen(token)),
                            "{n_tokens} {window} {stride} {token}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn nll_of_uniform_and_of_large_logits() {
        assert!((token_nll(&[0.5; 8], 3) - 8f64.ln()).abs() < 1e-12);
        assert!(token_nll(&[1e30, 0.0], 0).abs() < 1e-12);
    }
}
