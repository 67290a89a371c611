//! What a server's log says against it: errors, warnings and panics that no test expected.

use serde_json::Value;

/// The lines of a log that are errors, warnings or traces of a panic, and contain none of the allowed texts.
#[must_use]
pub fn complaints(log: &str, allowed: &[String]) -> Vec<String> {
    let bad = |line: &&str| is_complaint(line) && !allowed.iter().any(|text| line.contains(text));
    log.lines().filter(bad).map(str::to_owned).collect()
}

/// A structured line is judged by its level. Any other line is of a panic, or printed by a library: both are wrong,
/// except the termination message, which is the server's last word on standard output.
fn is_complaint(line: &str) -> bool {
    if line.trim().is_empty() {
        return false;
    }
    let Ok(value) = serde_json::from_str::<Value>(line) else { return true };
    match value.get("level").and_then(Value::as_str) {
        Some(level) => level.eq_ignore_ascii_case("warn") || level.eq_ignore_ascii_case("error"),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warnings_errors_and_panics_are_complaints_unless_allowed() {
        let log = r#"{"level":"INFO","fields":{"message":"ready"}}
{"level":"WARN","fields":{"message":"a peer is slow"}}
{"level":"ERROR","fields":{"message":"the disk failed"}}
thread 'apply' panicked at src/lib.rs:1:1:
{"verdict":"DiskFailed","message":"the disk failed"}
"#;
        assert_eq!(complaints(log, &[]).len(), 3);
        let left = complaints(log, &["a peer is slow".into(), "panicked".into()]);
        assert_eq!(left.len(), 1);
        assert!(left[0].contains("the disk failed"));
    }
}
