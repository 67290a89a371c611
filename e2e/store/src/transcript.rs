//! What etcdctl said to a script, in a form that two clusters agree on if their servers do.
//!
//! Ids, ports and the time things take differ between two clusters that behave alike. Each is replaced by a name that both
//! sides give to it: members by their place, leases by the order of their grants.

use serde_json::Value;

/// Fields of etcdctl's JSON that say how far a log is, or how large a file: no two runs agree on them.
const INCIDENTAL: [&str; 9] = [
    "raft_term",
    "raftTerm",
    "raftIndex",
    "raftAppliedIndex",
    "dbSize",
    "dbSizeInUse",
    "dbSizeQuota",
    "member_id",
    "leader",
];

/// The names that ids and addresses go by, and the lines so far.
#[derive(Clone, Debug, Default)]
pub struct Transcript {
    names: Vec<(String, String)>,
    lines: Vec<String>,
}

impl Transcript {
    /// From now on `text` is written as `<name>`.
    pub fn name(&mut self, text: impl Into<String>, name: &str) {
        self.write_as(text.into(), format!("<{name}>"));
    }

    fn write_as(&mut self, text: String, other: String) {
        self.names.push((text, other));
        // Longer texts first: one may be a part of another.
        self.names.sort_by_key(|(text, _)| std::cmp::Reverse(text.len()));
    }

    /// An id goes by this name in decimal and in hexadecimal, there also after the blanks that etcdctl's `%16x` puts before one that
    /// has fewer digits.
    pub fn name_id(&mut self, id: u64, name: &str) {
        self.write_as(format!(" {id:>16x}"), format!(" <{name}>"));
        self.name(id.to_string(), name);
        self.name(format!("{id:x}"), name);
    }

    /// Adds a command and what it said.
    pub fn add(&mut self, words: &[&str], said: &str) {
        let command = self.named(&words.join(" "));
        self.lines.push(format!("$ {command}"));
        for line in said.lines() {
            let line = line.split_once("took").map_or(line, |(before, _)| before);
            let line = self.named(line.trim_end());
            self.lines.push(line);
        }
    }

    /// Adds a command and its JSON, one field a line.
    pub fn add_json(&mut self, words: &[&str], said: &Value) {
        let mut value = said.clone();
        blank_incidental(&mut value);
        let text = serde_json::to_string_pretty(&value).expect("a JSON value can be written");
        self.add(words, &text);
    }

    fn named(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for (known, name) in &self.names {
            text = text.replace(known.as_str(), name);
        }
        text
    }

    /// The first place where two transcripts differ, with what stands before it.
    #[must_use]
    pub fn difference(&self, other: &Self) -> Option<String> {
        let length = self.lines.len().max(other.lines.len());
        let at = (0..length).find(|&at| self.lines.get(at) != other.lines.get(at))?;
        let command = self.lines[..at.min(self.lines.len())]
            .iter()
            .rposition(|line| line.starts_with("$ "))
            .unwrap_or(0);
        let show = |lines: &[String]| {
            let end = lines.len().min(at + 12);
            lines.get(command.min(end)..end).unwrap_or_default().join("\n")
        };
        Some(format!(
            "line {at} differs.\n--- one\n{}\n--- other\n{}",
            show(&self.lines),
            show(&other.lines)
        ))
    }

    /// How many lines there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lines.len()
    }

    /// Whether nothing was said.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }
}

fn blank_incidental(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (name, field) in fields {
                if INCIDENTAL.contains(&name.as_str()) {
                    *field = Value::from("*");
                } else {
                    blank_incidental(field);
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(blank_incidental),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_and_times_do_not_matter_and_all_else_does() {
        let side = |id: u64, port: u16, took: &str, value: &str| {
            let mut transcript = Transcript::default();
            transcript.name_id(id, "member a");
            transcript.name(format!("127.0.0.1:{port}"), "client a");
            transcript.add(
                &["endpoint", "health"],
                &format!("http://127.0.0.1:{port} is healthy: took = {took}"),
            );
            let json = serde_json::json!({"header": {"raft_term": id, "revision": 3}, "ID": id, "v": value});
            transcript.add_json(&["get"], &json);
            transcript
        };
        let one = side(255, 11_000, "1ms", "x");
        assert_eq!(one.difference(&side(4_000, 12_000, "9ms", "x")), None);
        let difference = one.difference(&side(255, 11_000, "1ms", "y")).unwrap();
        assert!(difference.contains("\"x\"") && difference.contains("\"y\""), "{difference}");
    }

    #[test]
    fn an_id_with_few_digits_stands_behind_blanks_and_is_the_same() {
        let side = |id: u64| {
            let mut transcript = Transcript::default();
            transcript.name_id(id, "cluster");
            transcript.add(&["member", "remove"], &format!("removed from cluster {id:16x}"));
            transcript.add(&["member", "list"], &format!("{id:x}, started, cluster {id:x}"));
            transcript
        };
        let usual = side(0xfedc_ba98_7654_3210);
        assert_eq!(usual.difference(&side(0x0dc_ba98_7654_3210)), None);
        assert_eq!(usual.difference(&side(0xedc_ba98_7654_3210)), None);
    }
}
