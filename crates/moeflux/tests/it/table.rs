//! The table of results: as the test prints it and as the documentation keeps it.

use std::fmt;

pub(crate) const HEAD: &str = "| family | checkpoint | prefill | decode | inside | greedy |";
pub(crate) const RULE: &str = "|---|---|---|---|---|---|";

/// What a case came to: worst differences where the reference has something to compare, and how many of its greedy
/// continuations were the same.
#[derive(Debug)]
pub(crate) struct Row {
    family: String,
    checkpoint: String,
    pub(crate) prefill: Option<f32>,
    pub(crate) decode: Option<f32>,
    pub(crate) inside: Option<f32>,
    pub(crate) greedy: (usize, usize),
}

impl Row {
    pub(crate) fn new(family: &str, checkpoint: &str) -> Self {
        Row {
            family: family.to_owned(),
            checkpoint: checkpoint.to_owned(),
            prefill: None,
            decode: None,
            inside: None,
            greedy: (0, 0),
        }
    }

    /// A line of the table; `None` if it is none.
    fn parse(line: &str) -> Option<Self> {
        let cells: Vec<&str> = line.strip_prefix('|')?.strip_suffix('|')?.split('|').map(str::trim).collect();
        let [family, checkpoint, prefill, decode, inside, greedy] = cells[..] else { return None };
        let (same, all) = greedy.split_once('/')?;
        Some(Row {
            prefill: prefill.parse().ok(),
            decode: decode.parse().ok(),
            inside: inside.parse().ok(),
            greedy: (same.parse().ok()?, all.parse().ok()?),
            ..Row::new(family, checkpoint)
        })
    }

    /// Whether both say the same, but for what another machine's mathematics library may change.
    fn agrees(&self, other: &Row) -> bool {
        let near = |a: Option<f32>, b: Option<f32>| match (a, b) {
            (Some(a), Some(b)) => a <= 2.0 * b && b <= 2.0 * a,
            (a, b) => a.is_none() && b.is_none(),
        };
        self.greedy == other.greedy
            && near(self.prefill, other.prefill)
            && near(self.decode, other.decode)
            && near(self.inside, other.inside)
    }

    fn is_of(&self, other: &Row) -> bool {
        (&self.family, &self.checkpoint) == (&other.family, &other.checkpoint)
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let worst = |worst: Option<f32>| worst.map_or("–".to_owned(), |worst| format!("{worst:.1e}"));
        let Row { family, checkpoint, prefill, decode, inside, greedy: (same, all) } = self;
        let [prefill, decode, inside] = [prefill, decode, inside].map(|part| worst(*part));
        write!(f, "| {family} | {checkpoint} | {prefill} | {decode} | {inside} | {same}/{all} |")
    }
}

/// In what the documented table is not what was found.
pub(crate) fn differences(found: &[Row], documented: &str) -> Vec<String> {
    let rows: Vec<Row> = documented.lines().filter_map(Row::parse).collect();
    let unknown = rows.iter().filter(|row| !found.iter().any(|found| found.is_of(row)));
    let mut differences: Vec<String> =
        unknown.map(|row| format!("docs/reference/correctness.md has what no case is: {row}")).collect();
    for found in found {
        let of_it: Vec<&Row> = rows.iter().filter(|row| row.is_of(found)).collect();
        match of_it[..] {
            [row] if row.agrees(found) => {}
            [row] => differences.push(format!("docs/reference/correctness.md says {row}, found {found}")),
            [] => differences.push(format!("docs/reference/correctness.md lacks {found}")),
            _ => differences.push(format!("docs/reference/correctness.md has twice {found}")),
        }
    }
    differences
}
