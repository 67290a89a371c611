//! Splits Rust text into code, comments and string literals, line by line.
//!
//! Just enough of the lexical grammar that a word in a comment or a string is never taken for code:
//! nested block comments, escapes, raw strings, and lifetimes that are no character literals.

/// One line, taken apart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Line {
    /// Without comments; every literal is empty quotes.
    pub code: String,
    /// The comments of the line, with their slashes.
    pub comment: String,
}

/// A string literal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Literal {
    /// Where it begins, from 1.
    pub line: usize,
    /// Between the quotes, escapes as written.
    pub text: String,
}

/// A file, taken apart.
#[derive(Clone, Debug, Default)]
pub struct Lexed {
    /// One for each line of the file.
    pub lines: Vec<Line>,
    /// In order.
    pub literals: Vec<Literal>,
}

/// Takes a file apart.
#[must_use]
pub fn lex(text: &str) -> Lexed {
    let mut lexer = Lexer { chars: text.chars().collect(), at: 0, lexed: Lexed::default() };
    lexer.lexed.lines.push(Line::default());
    while lexer.at < lexer.chars.len() {
        lexer.step();
    }
    lexer.lexed
}

struct Lexer {
    chars: Vec<char>,
    at: usize,
    lexed: Lexed,
}

impl Lexer {
    fn peek(&self, ahead: usize) -> char {
        self.chars.get(self.at + ahead).copied().unwrap_or('\0')
    }

    fn line(&mut self) -> &mut Line {
        self.lexed.lines.last_mut().expect("it begins with one")
    }

    /// Takes one character into code.
    fn code(&mut self) {
        let char = self.peek(0);
        self.at += 1;
        self.put(char, |line| &mut line.code);
    }

    fn put(&mut self, char: char, part: impl Fn(&mut Line) -> &mut String) {
        if char == '\n' {
            self.lexed.lines.push(Line::default());
        } else {
            part(self.line()).push(char);
        }
    }

    fn step(&mut self) {
        match (self.peek(0), self.peek(1)) {
            ('/', '/') => self.line_comment(),
            ('/', '*') => self.block_comment(),
            ('"', _) => self.string(0, false),
            ('\'', _) => self.quote(),
            (char, _) if is_word(char) => self.word(),
            _ => self.code(),
        }
    }

    fn line_comment(&mut self) {
        while self.at < self.chars.len() && self.peek(0) != '\n' {
            let char = self.peek(0);
            self.at += 1;
            self.line().comment.push(char);
        }
    }

    fn block_comment(&mut self) {
        let mut depth = 0;
        loop {
            let opens = (self.peek(0), self.peek(1)) == ('/', '*');
            let closes = (self.peek(0), self.peek(1)) == ('*', '/');
            depth += i32::from(opens) - i32::from(closes);
            for _ in 0..if opens || closes { 2 } else { 1 } {
                let char = self.peek(0);
                self.at += 1;
                self.put(char, |line| &mut line.comment);
            }
            if depth == 0 || self.at >= self.chars.len() {
                return;
            }
        }
    }

    /// A character literal, or the tick of a lifetime.
    fn quote(&mut self) {
        let width = match (self.peek(1), self.peek(2)) {
            ('\\', _) => (3..).find(|ahead| matches!(self.peek(*ahead), '\'' | '\0' | '\n')),
            (_, '\'') => Some(2),
            _ => None,
        };
        let Some(width) = width else { return self.code() };
        self.at += width + 1;
        self.line().code.push_str("''");
    }

    /// A word; a string if it is the prefix of one.
    fn word(&mut self) {
        let length = (0..).take_while(|ahead| is_word(self.peek(*ahead))).count();
        let word: String = self.chars[self.at..self.at + length].iter().collect();
        let raw = matches!(word.as_str(), "r" | "br" | "cr");
        let hashes = (length..).take_while(|ahead| self.peek(*ahead) == '#').count();
        if raw && self.peek(length + hashes) == '"' {
            self.at += length + hashes;
            self.string(hashes, true);
            return;
        }
        for _ in 0..length {
            self.code();
        }
    }

    /// From the opening quote to the closing one with its hashes.
    fn string(&mut self, hashes: usize, raw: bool) {
        let line = self.lexed.lines.len();
        self.line().code.push_str("\"\"");
        self.at += 1;
        let mut text = String::new();
        while self.at < self.chars.len() {
            let char = self.peek(0);
            self.at += 1;
            if char == '"' && (0..hashes).all(|ahead| self.peek(ahead) == '#') {
                self.at += hashes;
                break;
            }
            if char == '\n' {
                self.lexed.lines.push(Line::default());
            }
            text.push(char);
            if char == '\\' && !raw {
                let escaped = self.peek(0);
                self.at += 1;
                if escaped == '\n' {
                    self.lexed.lines.push(Line::default());
                }
                text.push(escaped);
            }
        }
        self.lexed.literals.push(Literal { line, text });
    }
}

/// Whether a character may stand in an identifier.
#[must_use]
pub fn is_word(char: char) -> bool {
    char.is_alphanumeric() || char == '_'
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(text: &str) -> Vec<String> {
        lex(text).lines.into_iter().map(|line| line.code).collect()
    }

    #[test]
    fn comments_and_strings_are_no_code() {
        let text = "let a = \"// no \\\" comment\"; // one\n/* two /* in */ two */ b";
        let lexed = lex(text);
        assert_eq!(code(text), ["let a = \"\"; ", " b"]);
        assert_eq!(lexed.lines[0].comment, "// one");
        assert_eq!(lexed.lines[1].comment, "/* two /* in */ two */");
        assert_eq!(lexed.literals, [Literal { line: 1, text: "// no \\\" comment".into() }]);
    }

    #[test]
    fn raw_strings_end_at_their_own_hashes() {
        let lexed = lex("f(r#\"a \"quoted\" \\\"#, br\"b\", r#type, b\"c\\\"d\") // e");
        let texts: Vec<_> = lexed.literals.iter().map(|literal| literal.text.as_str()).collect();
        assert_eq!(texts, ["a \"quoted\" \\", "b", "c\\\"d"]);
        assert_eq!(lexed.lines[0].code, "f(\"\", \"\", r#type, b\"\") ");
    }

    #[test]
    fn lifetimes_are_no_characters() {
        assert_eq!(
            code("fn f<'a>(x: &'a u8) { '\"'; '\\''; '\\u{7f}'; b'x' }"),
            ["fn f<'a>(x: &'a u8) { ''; ''; ''; b'' }"]
        );
    }

    #[test]
    fn lines_are_counted_through_everything() {
        let lexed = lex("a\n\"x\ny\\\nz\"\n/*\n*/\nb");
        assert_eq!(lexed.lines.len(), 7);
        assert_eq!(lexed.lines[6].code, "b");
        assert_eq!(lexed.literals[0].line, 2);
    }
}
