//! Where values come from: the command line, the environment or a file, in etcd's order of precedence.

use std::collections::BTreeMap;

use super::{
    ConfigError,
    flags::{self, FLAGS, Flag, Kind},
    values,
};

/// A value that somebody gave, and who.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Given {
    /// The value's text.
    pub value: String,
    /// How the giver calls it, for messages: `--name`, `ETCD_NAME`, or the file's key.
    pub label: String,
}

/// Every value that was given, by flag name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    given: BTreeMap<&'static str, Given>,
    /// What a person should know of the way in which the values were taken.
    pub warnings: Vec<String>,
}

impl Settings {
    /// Whether somebody gave a value.
    #[must_use]
    pub fn is_given(&self, name: &str) -> bool {
        self.given.contains_key(name)
    }

    /// The value given, or the default.
    ///
    /// # Panics
    /// If the name is not in the table: a mistake in this room.
    #[must_use]
    pub fn text(&self, name: &str) -> &str {
        self.given.get(name).map_or_else(
            || flags::find(name).expect("names asked for stand in the table").default,
            |given| &given.value,
        )
    }

    /// How to call a flag in a message about its value.
    #[must_use]
    pub fn label(&self, name: &str) -> String {
        self.given.get(name).map_or_else(|| format!("--{name}"), |given| given.label.clone())
    }

    /// All that was given, with its row of the table.
    pub fn iter(&self) -> impl Iterator<Item = (&'static Flag, &Given)> {
        self.given.iter().map(|(name, given)| {
            (flags::find(name).expect("only names of the table are taken in"), given)
        })
    }

    fn set(&mut self, flag: &'static Flag, value: String, label: String) {
        self.given.insert(flag.name, Given { value, label });
    }
}

/// The row of a name as a person may write it. An `experimental-` before a name that has left that stage is read
/// as the name without it, so that the manifests of etcd 3.5 and 3.6 go on working; a warning says so.
fn known(name: &str, warnings: &mut Vec<String>) -> Option<&'static Flag> {
    if let Some(flag) = flags::find(name) {
        return Some(flag);
    }
    let graduate = flags::find(name.strip_prefix("experimental-")?)?;
    warnings.push(format!("--{name} is read as --{}, its name since etcd 3.6", graduate.name));
    Some(graduate)
}

/// Reads a command line as Go's `flag` package does: `-name` and `--name`, `=value` or the next argument, and a
/// bare name for true.
///
/// # Errors
/// A name that is not in the table, a missing value, or an argument that is no flag.
pub fn command_line(arguments: &[String]) -> Result<Settings, ConfigError> {
    let mut settings = Settings::default();
    let mut warnings = Vec::new();
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        let stripped = argument.strip_prefix("--").or_else(|| argument.strip_prefix('-'));
        let Some(body) = stripped.filter(|body| !body.is_empty() && !body.starts_with(['-', '=']))
        else {
            return Err(ConfigError::new(format!("{argument:?} is not a valid flag")));
        };
        let (name, value) = match body.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (body, None),
        };
        if name == "experimental-initial-corrupt-check"
            || name == "experimental-compact-hash-check-enabled"
        {
            return Err(ConfigError::new(format!(
                "--{name}: the comparison of members' hashes is not served yet; leave the flag out"
            )));
        }
        let Some(flag) = known(name, &mut warnings) else {
            return Err(ConfigError::new(format!("flag provided but not defined: --{name}")));
        };
        let value = match (value, flag.kind) {
            (Some(value), _) => value,
            (None, Kind::Bool) => "true".to_owned(),
            (None, Kind::Text | Kind::Integer | Kind::Duration | Kind::List) => rest
                .next()
                .cloned()
                .ok_or_else(|| ConfigError::new(format!("flag needs an argument: --{name}")))?,
        };
        settings.set(flag, value, format!("--{name}"));
    }
    settings.warnings.append(&mut warnings);
    Ok(settings)
}

/// Adds what the environment says of flags that the command line left open.
pub fn environment(settings: &mut Settings, variables: &[(String, String)]) {
    let mut ours: BTreeMap<&str, &str> = variables
        .iter()
        .filter(|(name, _)| name.starts_with("ETCD_"))
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    for flag in FLAGS {
        let variable = flags::environment_name(flag.name);
        let Some(value) = ours.remove(variable.as_str()) else { continue };
        if settings.is_given(flag.name) {
            settings
                .warnings
                .push(format!("{variable} is left aside: --{} was given too", flag.name));
        } else if !value.is_empty() {
            settings.set(flag, value.to_owned(), variable);
        }
    }
    for variable in ours.keys() {
        settings
            .warnings
            .push(format!("{variable} in the environment is no setting that etcd knows"));
    }
}

/// Reads a configuration file (`--config-file`), which then stands alone.
///
/// # Errors
/// YAML that cannot be read, a key that is not in the table, or a value of the wrong shape. etcd would skip an
/// unknown key; a misspelt safety setting must not be skipped.
pub fn file(path: &str, content: &str) -> Result<Settings, ConfigError> {
    let document: serde_yaml_ng::Value = serde_yaml_ng::from_str(content)
        .map_err(|error| ConfigError::new(format!("{path} is not YAML: {error}")))?;
    let mut settings = Settings::default();
    match document {
        serde_yaml_ng::Value::Null => {}
        serde_yaml_ng::Value::Mapping(mapping) => section(path, "", "", &mapping, &mut settings)?,
        _ => return Err(ConfigError::new(format!("{path} must hold a mapping of settings"))),
    }
    Ok(settings)
}

/// etcd's nested parts of the file, and what stands before their keys on the command line.
const SECTIONS: [(&str, &str); 4] = [
    ("client-transport-security", ""),
    ("peer-transport-security", "peer-"),
    ("socket-options", "socket-"),
    ("discovery-config", "discovery-"),
];

fn section(
    path: &str,
    within: &str,
    prefix: &str,
    mapping: &serde_yaml_ng::Mapping,
    settings: &mut Settings,
) -> Result<(), ConfigError> {
    for (key, value) in mapping {
        let key = key.as_str().ok_or_else(|| {
            ConfigError::new(format!("{path}: a key under {within:?} is no text"))
        })?;
        let label = format!("{key} in {path}");
        if let (true, Some((_, inner))) =
            (within.is_empty(), SECTIONS.iter().find(|(name, _)| *name == key))
        {
            match value {
                serde_yaml_ng::Value::Mapping(nested) => {
                    section(path, key, inner, nested, settings)?;
                }
                serde_yaml_ng::Value::Null => {}
                _ => return Err(ConfigError::new(format!("invalid {key} in {path}"))),
            }
            continue;
        }
        let name = match (within, key) {
            // The file's own spellings (`embed/config.go`, securityConfig).
            ("client-transport-security", "allowed-hostname") => {
                "client-cert-allowed-hostname".to_owned()
            }
            ("peer-transport-security", "allowed-cn" | "allowed-hostname") => {
                format!("peer-cert-{key}")
            }
            _ => format!("{prefix}{key}"),
        };
        let flag = known(&name, &mut settings.warnings).ok_or_else(|| {
            ConfigError::new(format!("{label}: no such setting; see etcd's configuration options"))
        })?;
        if let Some(text) = scalar(flag.kind, value) {
            settings.set(flag, text, label);
        } else if !value.is_null() {
            return Err(ConfigError::new(format!("{label}: the value has the wrong shape")));
        }
    }
    Ok(())
}

/// A file's value as the command line would spell it; none for what has no such spelling.
fn scalar(kind: Kind, value: &serde_yaml_ng::Value) -> Option<String> {
    match value {
        serde_yaml_ng::Value::Bool(truth) => Some(truth.to_string()),
        // A bare number where a time span stands is nanoseconds, as Go decodes it.
        serde_yaml_ng::Value::Number(number) if kind == Kind::Duration => {
            Some(format!("{number}ns"))
        }
        serde_yaml_ng::Value::Number(number) => Some(number.to_string()),
        serde_yaml_ng::Value::String(text) => Some(text.clone()),
        serde_yaml_ng::Value::Sequence(items) => Some(
            items
                .iter()
                .map(|item| scalar(Kind::Text, item))
                .collect::<Option<Vec<_>>>()?
                .join(","),
        ),
        serde_yaml_ng::Value::Null
        | serde_yaml_ng::Value::Mapping(_)
        | serde_yaml_ng::Value::Tagged(_) => None,
    }
}

/// Whether a given value is the flag's default.
///
/// # Errors
/// The value is none of the flag's kind.
pub fn is_default(flag: &Flag, given: &Given) -> Result<bool, ConfigError> {
    values::same(flag.kind, &given.value, flag.default)
        .map_err(|error| ConfigError::new(format!("invalid value for {}: {error}", given.label)))
}
