//! Whatever Lark grammar the bytes stand for, whole or as pieces of one: refused by its measure, or compiled or refused within
//! seconds.
#![no_main]

mod support;

use std::fmt::Write;

use libfuzzer_sys::fuzz_target;
use moeflux::sampling::Constraint;
use support::Bytes;

fuzz_target!(|bytes: &[u8]| {
    let Some((&first, rest)) = bytes.split_first() else { return };
    if first % 4 == 0 {
        // As it stands.
        let text = String::from_utf8_lossy(rest).into_owned();
        support::compile(&if first % 8 == 0 { Constraint::Regex(text) } else { Constraint::Lark(text) });
        return;
    }
    let mut bytes = Bytes::new(rest);
    let rules = usize::from(bytes.next()) * usize::from(bytes.next() % 8) + 1;
    let mut grammar = String::from("start: r0\n");
    for index in 0..rules {
        let _ = write!(grammar, "r{index}:");
        for _ in 0..1 + bytes.next() % 4 {
            let _ = match bytes.next() % 10 {
                0 => write!(grammar, " \"{}\"", bytes.text().escape_default()),
                1 => write!(grammar, " /{}/", bytes.text()),
                2 => write!(grammar, " r{}", bytes.next()),
                3 => write!(grammar, " (r{} | \"a\")", index + 1),
                4 => write!(grammar, " r{}{{1,{}}}", index + 1, bytes.next()),
                5 => write!(grammar, " %json {{\"type\":\"{}\"}}", bytes.text().escape_default()),
                6 => write!(grammar, " <|im_end|>"),
                7 => write!(grammar, " | {}", bytes.text()),
                8 => write!(
                    grammar,
                    "{}\"a\"{}",
                    "(".repeat(bytes.next().into()),
                    ")".repeat(bytes.next().into())
                ),
                _ => write!(grammar, " r{}", index + 1),
            };
        }
        grammar.push('\n');
    }
    let _ = writeln!(grammar, "r{rules}: \"b\"");
    support::compile(&Constraint::Lark(grammar));
});
