//! The tree as the rules see it: every text file, and of Rust files which lines are for tests.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
};

use crate::lexer::{self, Line, Literal, is_word};

/// Larger files are data, not text that a person wrote.
const BYTES_MAX: u64 = 1 << 20;

/// A file that is not Rust.
#[derive(Clone, Debug)]
pub struct TextFile {
    /// Relative to the root, with slashes.
    pub path: String,
    /// The whole of it.
    pub text: String,
}

/// A Rust file.
#[derive(Clone, Debug)]
pub struct SourceFile {
    /// Relative to the root, with slashes.
    pub path: String,
    /// The whole of it.
    pub text: String,
    /// Taken apart.
    pub lines: Vec<Line>,
    /// Its string literals.
    pub literals: Vec<Literal>,
    /// For each line, whether it is compiled for tests only.
    pub for_tests: Vec<bool>,
}

/// Everything that was read.
#[derive(Clone, Debug, Default)]
pub struct Tree {
    /// Rust files, by path.
    pub rust: Vec<SourceFile>,
    /// All others, by path.
    pub texts: Vec<TextFile>,
    /// Every file's path, those that are no text included.
    pub paths: BTreeSet<String>,
    /// Where it lies; empty for one made of samples.
    pub root: PathBuf,
}

impl Tree {
    /// Reads the tree that this crate lies in.
    ///
    /// # Errors
    /// A directory or file cannot be read.
    pub fn load() -> io::Result<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize()?;
        let mut files = Vec::new();
        let mut paths = BTreeSet::new();
        walk(&root, &root, &mut |path, full| {
            paths.insert(path.clone());
            if full.metadata()?.len() <= BYTES_MAX
                && let Ok(text) = String::from_utf8(fs::read(full)?)
            {
                files.push((path, text));
            }
            Ok(())
        })?;
        let mut tree = Self::of(files);
        tree.paths = paths;
        tree.root = root;
        Ok(tree)
    }

    /// A tree of these files, for the tests of the rules.
    #[must_use]
    pub fn of<P: Into<String>, T: Into<String>>(files: impl IntoIterator<Item = (P, T)>) -> Self {
        let mut tree = Self::default();
        for (path, text) in files {
            let (path, text): (String, String) = (path.into(), text.into());
            tree.paths.insert(path.clone());
            if path.ends_with(".rs") {
                tree.rust.push(SourceFile::new(path, text));
            } else {
                tree.texts.push(TextFile { path, text });
            }
        }
        tree.rust.sort_by(|left, right| left.path.cmp(&right.path));
        tree.texts.sort_by(|left, right| left.path.cmp(&right.path));
        tree.mark_test_files();
        tree
    }

    /// The text of a file that is not Rust.
    #[must_use]
    pub fn text(&self, path: &str) -> Option<&str> {
        self.texts.iter().find(|file| file.path == path).map(|file| file.text.as_str())
    }

    /// The Rust files below a directory.
    pub fn rust_below<'a>(&'a self, directory: &'a str) -> impl Iterator<Item = &'a SourceFile> {
        self.rust.iter().filter(move |file| is_below(&file.path, directory))
    }

    /// Directories with a Cargo.toml, the root's excluded.
    pub fn packages(&self) -> impl Iterator<Item = &str> {
        self.texts.iter().filter_map(|file| file.path.strip_suffix("/Cargo.toml"))
    }

    /// Whether there is such a file or directory.
    #[must_use]
    pub fn has(&self, path: &str) -> bool {
        let path = path.trim_end_matches('/');
        self.paths.iter().any(|known| known == path || is_below(known, path))
    }

    /// Integration tests, benches and examples, and modules that were declared under `#[cfg(test)]`.
    fn mark_test_files(&mut self) {
        let packages: Vec<String> = self.packages().map(str::to_owned).collect();
        let mut test_paths: Vec<String> = packages
            .iter()
            .flat_map(|package| {
                ["tests", "benches", "examples"].map(|dir| format!("{package}/{dir}"))
            })
            .collect();
        test_paths.extend(self.rust.iter().flat_map(SourceFile::test_modules));
        for file in &mut self.rust {
            let is_test = test_paths.iter().any(|path| {
                file.path == *path
                    || file.path == format!("{path}.rs")
                    || is_below(&file.path, path)
            });
            if is_test {
                file.for_tests.fill(true);
            }
        }
    }
}

impl SourceFile {
    fn new(path: String, text: String) -> Self {
        let lexed = lexer::lex(&text);
        let mut file = Self {
            path,
            text,
            for_tests: vec![false; lexed.lines.len()],
            lines: lexed.lines,
            literals: lexed.literals,
        };
        for (first, last) in file.test_items() {
            file.for_tests[first..=last].fill(true);
        }
        file
    }

    /// Lines of code with their number and whether they are for tests only.
    pub fn code(&self) -> impl Iterator<Item = (usize, &str, bool)> {
        let lines = self.lines.iter().zip(&self.for_tests).enumerate();
        lines.map(|(index, (line, for_tests))| (index + 1, line.code.as_str(), *for_tests))
    }

    /// Lines that are not for tests only; of a file that is, all of them.
    #[must_use]
    pub fn length(&self) -> usize {
        let whole = self.text.lines().count();
        let used = self.for_tests.iter().take(whole).filter(|for_tests| !**for_tests).count();
        if used == 0 { whole } else { used }
    }

    /// The items under `#[cfg(test)]`: first and last line, from 0.
    fn test_items(&self) -> Vec<(usize, usize)> {
        let mut items = Vec::new();
        for (index, line) in self.lines.iter().enumerate() {
            let gates = ["#[cfg(test)]", "#[cfg(any(test,", "#[cfg(all(test,"];
            if gates.iter().any(|gate| line.code.contains(gate)) {
                items.push((index, self.end_of_item(index)));
            }
        }
        items
    }

    /// The line at which the item that begins here ends, by its braces or its semicolon.
    fn end_of_item(&self, first: usize) -> usize {
        let (mut depth, mut braces) = (0_i32, 0_i32);
        for (index, line) in self.lines.iter().enumerate().skip(first) {
            for char in line.code.chars() {
                match char {
                    '(' | '[' => depth += 1,
                    ')' | ']' => depth -= 1,
                    '{' => braces += 1,
                    '}' => braces -= 1,
                    _ => {}
                }
                let ended = (char == '}' || char == ';') && braces == 0 && depth == 0;
                if ended {
                    return index;
                }
            }
        }
        self.lines.len() - 1
    }

    /// Paths (without `.rs`) of modules that this file declares under `#[cfg(test)]`.
    fn test_modules(&self) -> Vec<String> {
        let (directory, name) = self.path.rsplit_once('/').unwrap_or(("", &self.path));
        let stem = name.trim_end_matches(".rs");
        let home = match stem {
            "lib" | "main" | "mod" => directory.to_owned(),
            _ => format!("{directory}/{stem}"),
        };
        let mut modules = Vec::new();
        for (first, last) in self.test_items() {
            let code: String =
                self.lines[first..=last].iter().map(|line| format!("{} ", line.code)).collect();
            let Some(declared) = code.split("mod ").nth(1).filter(|_| !code.contains('{')) else {
                continue;
            };
            let path = self.literals.iter().find(|literal| {
                (first + 1..=last + 1).contains(&literal.line) && literal.text.ends_with(".rs")
            });
            modules.push(match path {
                Some(path) => format!("{directory}/{}", path.text),
                None => {
                    let module: String =
                        declared.chars().take_while(|char| is_word(*char)).collect();
                    format!("{home}/{module}")
                }
            });
        }
        modules
    }
}

/// Whether a path lies in a directory.
#[must_use]
pub fn is_below(path: &str, directory: &str) -> bool {
    path.strip_prefix(directory).is_some_and(|rest| rest.starts_with('/'))
}

/// Whether a word stands in a line of code, as a word of its own.
#[must_use]
pub fn has_word(code: &str, word: &str) -> bool {
    code.match_indices(word).any(|(at, _)| {
        let before = code[..at].chars().next_back();
        let after = code[at + word.len()..].chars().next();
        !before.is_some_and(is_word) && !after.is_some_and(is_word)
    })
}

/// What is ours to read: no build output, nothing of version control.
fn walk(
    root: &Path,
    directory: &Path,
    visit: &mut impl FnMut(String, &Path) -> io::Result<()>,
) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let path = entry.path();
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name == "target" || name == ".git" {
            continue;
        }
        let is_link = entry.file_type()?.is_symlink();
        if path.is_dir() {
            if !is_link {
                walk(root, &path, visit)?;
            }
        } else if path.exists() || is_link {
            let relative = path.strip_prefix(root).expect("the walk began there");
            if path.exists() {
                visit(relative.to_string_lossy().replace('\\', "/"), &path)?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines_for_tests(tree: &Tree, path: &str) -> Vec<usize> {
        let file = tree.rust.iter().find(|file| file.path == path).expect("it is in the tree");
        file.code().filter(|(.., for_tests)| *for_tests).map(|(line, ..)| line).collect()
    }

    #[test]
    fn an_item_under_cfg_test_ends_with_its_braces() {
        let text = "fn a() {}\n#[cfg(test)]\nmod tests {\n  fn b() { \"}\"; }\n}\nfn c() {}\n";
        let tree = Tree::of([("x/src/lib.rs", text)]);
        assert_eq!(lines_for_tests(&tree, "x/src/lib.rs"), [2, 3, 4, 5]);
    }

    #[test]
    fn code_that_is_not_for_tests_is_not_taken_for_it() {
        let text = "#![cfg_attr(not(test), deny(x))]\n#[cfg(not(test))]\nfn a() {}\n// #[cfg(test)]\nfn b() {}\n";
        let tree = Tree::of([("x/src/lib.rs", text)]);
        assert_eq!(lines_for_tests(&tree, "x/src/lib.rs"), [0_usize; 0]);
    }

    #[test]
    fn modules_declared_for_tests_are_for_tests_whole() {
        let tree = Tree::of([
            ("x/Cargo.toml", ""),
            ("x/src/lib.rs", "mod a;\n#[cfg(test)]\nmod fixture;\n"),
            ("x/src/fixture.rs", "fn f() {}"),
            ("x/src/fixture/deep.rs", "fn f() {}"),
            (
                "x/src/a.rs",
                "fn f() {}\n#[cfg(test)]\n#[path = \"a_tests.rs\"]\nmod tests;\n#[cfg(test)]\nmod more;",
            ),
            ("x/src/a_tests.rs", "fn f() {}"),
            ("x/src/a/more.rs", "fn f() {}"),
            ("x/src/a/other.rs", "fn f() {}"),
            ("x/tests/suite/main.rs", "fn f() {}"),
        ]);
        for path in ["x/src/fixture.rs", "x/src/fixture/deep.rs", "x/src/a_tests.rs"] {
            assert_eq!(lines_for_tests(&tree, path), [1], "{path}");
        }
        assert_eq!(lines_for_tests(&tree, "x/src/a/more.rs"), [1]);
        assert_eq!(lines_for_tests(&tree, "x/tests/suite/main.rs"), [1]);
        assert_eq!(lines_for_tests(&tree, "x/src/a/other.rs"), [0_usize; 0]);
        assert_eq!(lines_for_tests(&tree, "x/src/a.rs"), [2, 3, 4, 5, 6]);
    }

    #[test]
    fn words_are_whole_words() {
        assert!(has_word("a: HashMap<u8>", "HashMap"));
        assert!(!has_word("a: MyHashMap", "HashMap"));
        assert!(!has_word("Instantly", "Instant"));
        assert!(has_word("std::fs::read", "std::fs"));
    }
}
