//! Whatever body a request has, as it is or put together from the fields of the APIs: it is read, or refused with a failure of
//! the client's. No model is asked.
#![no_main]

use libfuzzer_sys::fuzz_target;
use moeflux_server::body::check;

const PATHS: [&str; 4] = ["/v1/chat/completions", "/v1/completions", "/v1/messages", "/v1/responses"];
/// Pieces of bodies.
const PIECES: &[&str] = &[
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    "\"",
    "null",
    "true",
    "1",
    "-1",
    "1e308",
    "18446744073709551616",
    "\"x\"",
    "\"hi\"",
    "\\ud800",
    "\"messages\":",
    "\"role\":\"user\"",
    "\"role\":\"assistant\"",
    "\"role\":\"tool\"",
    "\"content\":",
    "\"hello\"",
    "{\"role\":\"user\",\"content\":\"hi\"}",
    "\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]",
    "\"prompt\":",
    "\"prompt\":\"x\"",
    "\"input\":",
    "\"input\":\"x\"",
    "\"max_tokens\":",
    "\"max_tokens\":5",
    "\"max_output_tokens\":5",
    "\"n\":",
    "\"stop\":",
    "\"stream\":true",
    "\"stream_options\":",
    "\"temperature\":",
    "\"top_p\":",
    "\"logit_bias\":",
    "\"logprobs\":true",
    "\"top_logprobs\":",
    "\"seed\":",
    "\"tools\":",
    "{\"type\":\"function\",\"function\":{\"name\":\"f\",\"parameters\":{}}}",
    "{\"name\":\"f\",\"input_schema\":{}}",
    "\"tool_choice\":",
    "\"required\"",
    "{\"type\":\"any\"}",
    "\"response_format\":",
    "{\"type\":\"json_schema\",\"json_schema\":{\"name\":\"x\",\"schema\":{}}}",
    "\"text\":{\"format\":",
    "\"system\":",
    "\"thinking\":",
    "{\"type\":\"enabled\",\"budget_tokens\":1024}",
    "\"reasoning\":",
    "{\"effort\":\"low\"}",
    "\"model\":\"demo\"",
    "\"type\":\"text\"",
    "\"text\":\"x\"",
    "\"tool_calls\":",
    "{\"id\":\"c\",\"type\":\"function\",\"function\":{\"name\":\"f\",\"arguments\":\"{}\"}}",
    "\"tool_call_id\":\"c\"",
    "\"type\":\"tool_result\"",
    "\"tool_use_id\":\"c\"",
    "\"metadata\":{}",
];

fuzz_target!(|bytes: &[u8]| {
    let Some((&first, rest)) = bytes.split_first() else { return };
    let path = PATHS[usize::from(first) % PATHS.len()];
    let body = match first / 4 % 3 {
        0 => rest.to_vec(),
        _ => {
            let pieces: Vec<&str> =
                rest.iter().map(|&byte| PIECES[usize::from(byte) % PIECES.len()]).collect();
            let body = pieces.concat();
            // Most pieces are members of an object.
            if first / 4 % 3 == 1 {
                format!("{{{}}}", pieces.join(",")).into_bytes()
            } else {
                body.into_bytes()
            }
        }
    };
    if let Some(Err(failure)) = check(path, &body) {
        assert!(failure.kind.status().is_client_error(), "{failure:?}");
    }
});
