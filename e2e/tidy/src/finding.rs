//! A finding: where, which rule, what to do.

use std::fmt;

/// One place that breaks one rule.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// Relative to the root of the tree.
    pub path: String,
    /// From 1; 0 when it is about the whole file.
    pub line: usize,
    /// What is wrong and what to do about it.
    pub advice: String,
}

impl Finding {
    /// A finding at a line.
    #[must_use]
    pub fn at(path: &str, line: usize, advice: impl Into<String>) -> Self {
        Self { path: path.to_owned(), line, advice: advice.into() }
    }

    /// A finding about a file, or about its absence.
    #[must_use]
    pub fn about(path: &str, advice: impl Into<String>) -> Self {
        Self::at(path, 0, advice)
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}: {}", self.path, self.advice),
            line => write!(f, "{}:{line}: {}", self.path, self.advice),
        }
    }
}

/// All findings of a rule as one message.
#[must_use]
pub fn report(rule: &str, findings: &[Finding]) -> String {
    let mut sorted: Vec<&Finding> = findings.iter().collect();
    sorted.sort();
    let lines: String = sorted.iter().map(|finding| format!("\n  {finding}")).collect();
    format!("rule `{rule}` is broken in {} places:{lines}\n", findings.len())
}
