//! Sizes as people write them.

use std::fmt;
use std::str::FromStr;

use anyhow::{Context, Error, Result, bail};

/// A number of bytes: `8G`, `6GiB`, `500M`, `1.5T`. K, M, G and T, alone or with `iB`, are powers of 1024; `KB`, `MB`,
/// `GB` and `TB` powers of 1000.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Size(pub(crate) u64);

impl FromStr for Size {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = || format!("expected a size such as 8G, 6GiB or 500M, found {text:?}");
        let text = text.trim();
        let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let (number, unit) = text.split_at(end);
        let number: f64 = number.parse().with_context(wrong)?;
        let unit = unit.trim().to_ascii_lowercase();
        let mut letters = unit.chars();
        let power = letters.next().map_or(Some(0), |letter| "bkmgt".find(letter));
        let power = power.with_context(wrong)? as i32;
        let base = match letters.as_str() {
            "" => 1024f64,
            "ib" if power > 0 => 1024.0,
            "b" if power > 0 => 1000.0,
            _ => bail!(wrong()),
        };
        let bytes = number * base.powi(power);
        if bytes >= u64::MAX as f64 {
            bail!(wrong());
        }
        Ok(Size(bytes as u64))
    }
}

/// Bytes, or a share of all there is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Amount {
    /// So many bytes.
    Bytes(u64),
    /// So many hundredths.
    Percent(f64),
}

impl Amount {
    /// In bytes, of `all`.
    pub(crate) fn of(self, all: u64) -> u64 {
        match self {
            Amount::Bytes(bytes) => bytes,
            Amount::Percent(percent) => (all as f64 * percent / 100.0) as u64,
        }
    }
}

impl FromStr for Amount {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let Some(number) = text.trim().strip_suffix('%') else {
            return Ok(Amount::Bytes(text.parse::<Size>()?.0));
        };
        let percent: f64 = number
            .trim()
            .parse()
            .ok()
            .filter(|percent| (0.0..=100.0).contains(percent))
            .with_context(|| format!("expected a share from 0% to 100%, found {text:?}"))?;
        Ok(Amount::Percent(percent))
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")];
        let text = match units.into_iter().find(|(power, _)| self.0 >> power > 0) {
            Some((power, unit)) => format!("{:.2} {unit}", self.0 as f64 / (1u64 << power) as f64),
            None => format!("{} B", self.0),
        };
        f.pad(&text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, bytes) in [
            ("0", 0),
            ("123", 123),
            ("500M", 500 << 20),
            ("8G", 8 << 30),
            ("6GiB", 6 << 30),
            ("6 gib", 6 << 30),
            ("2GB", 2_000_000_000),
            ("1.5k", 1536),
            ("10 b", 10),
            ("1T", 1 << 40),
        ] {
            assert_eq!(text.parse::<Size>().ok(), Some(Size(bytes)), "{text}");
        }
        for text in ["", "G", "-1", "8X", "8GiBs", "1e9", "8 G B", "99999999999T", "1.2.3", "8é"] {
            assert!(text.parse::<Size>().is_err(), "{text}");
        }
    }

    #[test]
    fn amounts() {
        for (text, bytes) in [("25%", 250), ("0 %", 0), ("100%", 1000), ("2.5%", 25), ("64", 64)] {
            assert_eq!(text.parse::<Amount>().ok().map(|amount| amount.of(1000)), Some(bytes), "{text}");
        }
        for text in ["%", "101%", "-1%", "x%", "nan%"] {
            assert!(text.parse::<Amount>().is_err(), "{text}");
        }
    }

    #[test]
    fn shown_as_they_are_written() {
        for (bytes, text) in [(5, "5 B"), (1536, "1.50 KiB"), (8 << 30, "8.00 GiB")] {
            assert_eq!(Size(bytes).to_string(), text);
        }
    }
}
