//! Which of a repository's files a model needs.

use crate::error::Error;
use std::collections::BTreeMap;

/// The index that lists the shards of safetensors weights.
pub(crate) const INDEX: &str = "model.safetensors.index.json";

/// The chosen files, by path.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Selection {
    pub(crate) files: Vec<String>,
    /// Which weights were chosen, if the repository could have more than one set of them.
    pub(crate) choice: Option<String>,
    /// Whether the shards that [`INDEX`] names are needed too.
    pub(crate) with_shards: bool,
}

/// Chooses among the files at `paths` of a repository. Safetensors in the root come before GGUF; copies in other formats
/// and in folders beside are left out. `pattern` chooses otherwise: see [`chooses`].
pub(crate) fn select(repo: &str, paths: &[&str], pattern: Option<&str>) -> Result<Selection, Error> {
    if let Some(pattern) = pattern {
        let weights = |path: &str| is_gguf(path) || is_single_safetensors(path);
        return choose(repo, paths, &groups(paths, weights), Some(pattern));
    }
    let has = |path: &str| paths.contains(&path);
    if has("moeflux.json") {
        return Ok(pack(paths));
    }
    let safetensors: Vec<&str> = paths.iter().copied().filter(|path| is_single_safetensors(path)).collect();
    if has(INDEX) {
        let files = companions(repo, paths)?.chain([INDEX.to_owned()]).collect();
        return Ok(Selection { files, choice: None, with_shards: true });
    }
    let single = if has("model.safetensors") { &["model.safetensors"] } else { safetensors.as_slice() };
    match single {
        [weights] => {
            let files = companions(repo, paths)?.chain([(*weights).to_owned()]).collect();
            Ok(Selection { files, choice: None, with_shards: false })
        }
        [] => choose(repo, paths, &groups(paths, is_gguf), None),
        several => Err(choice(repo, several.iter().copied())),
    }
}

/// Whether `pattern` means the weights at `path`: the path, the file's name, or either without ending and number of the
/// part; a part of the name between dashes, dots and slashes (`Q4_K_M`); or any of these with `*` and `?`. Case does not
/// matter.
pub(crate) fn chooses(pattern: &str, path: &str) -> bool {
    let (pattern, path) = (pattern.to_ascii_lowercase(), path.to_ascii_lowercase());
    let (stem, _) = stem(&path);
    let name = |path: &str| path.rsplit('/').next().unwrap_or_default().to_owned();
    let whole = [name(&path), name(stem), stem.to_owned()];
    if pattern.contains(['*', '?']) {
        return whole.iter().chain([&path]).any(|text| wildcard(pattern.as_bytes(), text.as_bytes()));
    }
    let is_end = |c: Option<char>| c.is_none_or(|c| matches!(c, '-' | '.' | '/'));
    let is_part = stem.match_indices(&pattern).any(|(start, _)| {
        is_end(stem[..start].chars().next_back()) && is_end(stem[start + pattern.len()..].chars().next())
    });
    is_part || path == pattern || whole.contains(&pattern)
}

/// Sets of weight files: a file, or the parts of one, by their common stem.
type Groups<'a> = BTreeMap<&'a str, Vec<&'a str>>;

fn groups<'a>(paths: &[&'a str], is_weights: impl Fn(&str) -> bool) -> Groups<'a> {
    let mut groups = Groups::new();
    for path in paths.iter().filter(|path| is_weights(path)) {
        groups.entry(stem(path).0).or_default().push(path);
    }
    groups
}

/// The only group that the pattern means, whole, with what its format needs beside it.
fn choose(
    repo: &str,
    paths: &[&str],
    groups: &Groups<'_>,
    pattern: Option<&str>,
) -> Result<Selection, Error> {
    if groups.is_empty() {
        return Err(Error::NoWeights { repo: repo.to_owned(), what: nothing(paths) });
    }
    let meant =
        |group: &[&str]| pattern.is_none_or(|pattern| group.iter().any(|path| chooses(pattern, path)));
    let chosen: Vec<_> = groups.iter().filter(|(_, group)| meant(group)).collect();
    // An exact name is meant before names that it is a part of.
    let exact =
        |stem: &str| pattern.is_some_and(|pattern| groups[stem].contains(&pattern) || stem == pattern);
    let (stem, group) = match chosen.as_slice() {
        [] => return Err(choice(repo, groups.keys().copied())),
        [only] => *only,
        several => match several.iter().find(|(stem, _)| exact(stem)) {
            Some(one) => *one,
            None => return Err(choice(repo, several.iter().map(|(stem, _)| **stem))),
        },
    };
    let parts = group.iter().filter_map(|path| self::stem(path).1).map(|part| part.of).max();
    for number in 1..=parts.unwrap_or(0) {
        if !group.iter().any(|path| self::stem(path).1.is_some_and(|part| part.number == number)) {
            let file = format!("{stem}-{number:05}-of-{:05}.gguf", parts.unwrap_or(0));
            return Err(Error::MissingFile { repo: repo.to_owned(), file, needed_by: group[0].to_owned() });
        }
    }
    let mut files: Vec<String> = group.iter().map(|path| (*path).to_owned()).collect();
    if !is_gguf(group[0]) {
        files.extend(companions(repo, paths)?);
    }
    Ok(Selection { files, choice: Some((*stem).to_owned()), with_shards: false })
}

/// What a folder of safetensors needs beside weights: the config, the tokenizer, the chat templates.
fn companions<'a>(repo: &str, paths: &'a [&str]) -> Result<impl Iterator<Item = String> + 'a, Error> {
    if !paths.contains(&"config.json") {
        let (file, needed_by) = ("config.json".to_owned(), "every model in safetensors".to_owned());
        return Err(Error::MissingFile { repo: repo.to_owned(), file, needed_by });
    }
    let is_companion = |path: &str| match path.rsplit_once('/') {
        Some((folder, name)) => folder == "additional_chat_templates" && has_ending(name, "jinja"),
        None => {
            let data = ["json", "jinja", "model"].iter().any(|ending| has_ending(path, ending));
            let named = path.starts_with("tokenizer") || path.starts_with("chat_template");
            let fixed = ["config.json", "generation_config.json", "hf_quant_config.json", "tiktoken.model"];
            fixed.contains(&path) || (named && data)
        }
    };
    Ok(paths.iter().filter(move |path| is_companion(path)).map(|path| (*path).to_owned()))
}

/// A model that `moeflux convert` wrote: everything in it.
fn pack(paths: &[&str]) -> Selection {
    let is_part = |path: &&&str| {
        let text = [".json", ".jinja", ".model", ".bin"].iter().any(|ending| path.ends_with(ending));
        text && (!path.contains('/') || path.starts_with("experts/"))
    };
    let files = paths.iter().filter(is_part).map(|path| (*path).to_owned()).collect();
    Selection { files, choice: None, with_shards: false }
}

fn choice<'a>(repo: &str, files: impl Iterator<Item = &'a str>) -> Error {
    Error::Choice { repo: repo.to_owned(), files: files.map(str::to_owned).collect() }
}

/// Says what there is instead of weights that can be read.
fn nothing(paths: &[&str]) -> String {
    let pickles = ["bin", "pt", "pth", "pkl", "ckpt"];
    let pickle = paths.iter().find(|path| pickles.iter().any(|ending| has_ending(path, ending)));
    match pickle {
        Some(path) => format!("no weights in safetensors or GGUF; pickles such as {path} are never read"),
        None => "no weights in safetensors or GGUF".to_owned(),
    }
}

/// Weights in GGUF; projectors of images and importance matrices come in files of that ending too.
pub(crate) fn is_gguf(path: &str) -> bool {
    has_ending(path, "gguf") && !["mmproj", "imatrix"].iter().any(|other| path.contains(other))
}

/// Weights in one safetensors file of the root. Shards need their index; `consolidated` is a copy in another naming.
fn is_single_safetensors(path: &str) -> bool {
    let other = path.contains('/') || path.starts_with("consolidated") || stem(path).1.is_some();
    has_ending(path, "safetensors") && !other
}

fn has_ending(path: &str, ending: &str) -> bool {
    path.rsplit_once('.').is_some_and(|(_, found)| found.eq_ignore_ascii_case(ending))
}

/// One of the files that a set of weights is split into.
#[derive(Clone, Copy)]
struct Part {
    number: u32,
    of: u32,
}

/// A weight file's path without its ending, and without `-00002-of-00005` if it is a part.
fn stem(path: &str) -> (&str, Option<Part>) {
    let stem = [".gguf", ".safetensors"].iter().find_map(|ending| path.strip_suffix(ending)).unwrap_or(path);
    let part = || {
        let (rest, of) = stem.rsplit_once("-of-")?;
        let (rest, number) = rest.rsplit_once('-')?;
        Some((rest, Some(Part { number: number.parse().ok()?, of: of.parse().ok()? })))
    };
    part().unwrap_or((stem, None))
}

/// Whether `text` is what `pattern` says, with `*` for any bytes and `?` for one.
fn wildcard(pattern: &[u8], text: &[u8]) -> bool {
    let (mut at, mut read) = (0, 0);
    // The last star, and how much of the text it has taken.
    let mut star = None;
    while read < text.len() {
        match pattern.get(at) {
            Some(b'*') => {
                star = Some((at, read));
                at += 1;
            }
            Some(&byte) if byte == b'?' || byte == text[read] => {
                at += 1;
                read += 1;
            }
            _ => {
                let Some((star_at, taken)) = star else { return false };
                star = Some((star_at, taken + 1));
                at = star_at + 1;
                read = taken + 1;
            }
        }
    }
    pattern[at..].iter().all(|&byte| byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::{INDEX, Selection, chooses, select, wildcard};
    use crate::error::Error;

    fn chosen(paths: &[&str], pattern: Option<&str>) -> Result<Selection, Error> {
        select("a/b", paths, pattern)
    }

    const SHARDED: &[&str] = &[
        ".gitattributes",
        "README.md",
        "additional_chat_templates/tool_use.jinja",
        "chat_template.jinja",
        "config.json",
        "consolidated.safetensors",
        "generation_config.json",
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
        INDEX,
        "modeling_x.py",
        "original/consolidated.00.pth",
        "original/model.safetensors",
        "pytorch_model.bin",
        "tokenizer.json",
        "tokenizer.py",
        "tokenizer_config.json",
        "vocab.json",
    ];

    #[test]
    fn a_folder_of_shards() {
        let selection = chosen(SHARDED, None).expect("a model");
        let files = [
            "additional_chat_templates/tool_use.jinja",
            "chat_template.jinja",
            "config.json",
            "generation_config.json",
            "tokenizer.json",
            "tokenizer_config.json",
            INDEX,
        ];
        assert_eq!(selection.files, files);
        assert!(selection.with_shards && selection.choice.is_none());
    }

    #[test]
    fn a_single_file() {
        let selection = chosen(&["config.json", "consolidated.safetensors", "weights.safetensors"], None);
        assert_eq!(selection.expect("a model").files, ["config.json", "weights.safetensors"]);
        let two = ["config.json", "model.fp16.safetensors", "other.safetensors"];
        assert!(matches!(chosen(&two, None), Err(Error::Choice { files, .. }) if files.len() == 2));
        let one = chosen(&two, Some("model.fp16.safetensors")).expect("a model");
        assert_eq!(one.files, ["model.fp16.safetensors", "config.json"]);
        assert_eq!(one.choice.as_deref(), Some("model.fp16"));
        assert!(matches!(chosen(&["model.safetensors"], None), Err(Error::MissingFile { .. })));
    }

    const GGUF: &[&str] = &[
        "README.md",
        "config.json",
        "Model-Q4_K_M.gguf",
        "Model-Q4_K_S.gguf",
        "UD-Q4_K_XL/Model-UD-Q4_K_XL-00001-of-00002.gguf",
        "UD-Q4_K_XL/Model-UD-Q4_K_XL-00002-of-00002.gguf",
        "mmproj-F16.gguf",
    ];

    #[test]
    fn one_of_several_ggufs() {
        assert!(matches!(chosen(GGUF, None), Err(Error::Choice { files, .. }) if files.len() == 3));
        for pattern in ["Q4_K_M", "Model-Q4_K_M.gguf", "q4_k_m", "*K_M*", "Model-Q4_K_?.gguf"] {
            match chosen(GGUF, Some(pattern)) {
                Ok(selection) => {
                    assert_eq!(selection.files, ["Model-Q4_K_M.gguf"], "{pattern}");
                    assert_eq!(selection.choice.as_deref(), Some("Model-Q4_K_M"));
                }
                Err(Error::Choice { files, .. }) => {
                    assert_eq!((pattern, files.len()), ("Model-Q4_K_?.gguf", 2));
                }
                Err(error) => panic!("{pattern}: {error}"),
            }
        }
        for pattern in
            ["UD-Q4_K_XL", "UD-Q4_K_XL/*", "UD-Q4_K_XL/Model-UD-Q4_K_XL-00001-of-00002.gguf", "*XL"]
        {
            assert_eq!(chosen(GGUF, Some(pattern)).expect(pattern).files, GGUF[4..6], "{pattern}");
        }
        let cut = [GGUF[4]];
        let missing = "UD-Q4_K_XL/Model-UD-Q4_K_XL-00002-of-00002.gguf";
        assert!(matches!(chosen(&cut, None), Err(Error::MissingFile { file, .. }) if file == missing));
        assert!(matches!(chosen(GGUF, Some("Q9")), Err(Error::Choice { files, .. }) if files.len() == 3));
    }

    #[test]
    fn an_exact_name_is_no_part() {
        let paths = ["model-q4.gguf", "model-q4-long.gguf"];
        assert_eq!(chosen(&paths, Some("model-q4")).expect("a model").files, ["model-q4.gguf"]);
    }

    #[test]
    fn a_pack_is_taken_whole() {
        let paths = [
            "README.md",
            "config.json",
            "dense.bin",
            "experts/layer_00.bin",
            "moeflux.json",
            "old/x.bin",
            "tokenizer.json",
        ];
        let files = ["config.json", "dense.bin", "experts/layer_00.bin", "moeflux.json", "tokenizer.json"];
        assert_eq!(chosen(&paths, None).expect("a pack").files, files);
    }

    #[test]
    fn pickles_are_no_weights() {
        let error = chosen(&["config.json", "pytorch_model.bin"], None).expect_err("no model");
        assert!(error.to_string().contains("pytorch_model.bin are never read"), "{error}");
    }

    #[test]
    fn patterns() {
        assert!(chooses("q4", "model-Q4.gguf") && !chooses("q4", "model-Q4_K.gguf"));
        for (pattern, text, expected) in [
            ("*", "", true),
            ("a*b*c", "a--b-b--c", true),
            ("a*b*c", "a--b-b--d", false),
            ("?b", "ab", true),
            ("?b", "b", false),
            ("ab", "abc", false),
            ("*bc", "abcbc", true),
        ] {
            assert_eq!(wildcard(pattern.as_bytes(), text.as_bytes()), expected, "{pattern} {text}");
        }
    }
}
