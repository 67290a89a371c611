//! The command line of `quorate prepare`: what is done to a data directory before a member serves from it.

use std::path::PathBuf;

use super::{
    ConfigError,
    values::{self, Url},
};

/// `prepare form`: make an empty directory the first member of a new cluster, as a static start of one member would.
/// Done again with the same token it succeeds and changes nothing (design §5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Form {
    /// Names this formation for good; enters the ids as etcd's `--initial-cluster-token` does.
    pub token: String,
    /// The member's name.
    pub name: String,
    /// Where.
    pub data_dir: PathBuf,
    /// The member's peer URLs.
    pub peer_urls: Vec<Url>,
    /// The member's client URLs.
    pub client_urls: Vec<Url>,
}

/// Reads what follows `prepare`.
///
/// # Errors
/// An unknown verb or flag, a missing one, or a value that cannot be read.
pub(super) fn read(arguments: &[String]) -> Result<Form, ConfigError> {
    let Some((verb, rest)) = arguments.split_first() else {
        return Err(ConfigError::new("quorate prepare: say what to prepare; form is known"));
    };
    if verb != "form" {
        return Err(ConfigError::new(format!("quorate prepare {verb}: only form is known")));
    }
    let [mut token, mut name, mut data_dir, mut peer_url, mut client_url] = [const { None }; 5];
    let mut rest = rest.iter();
    while let Some(argument) = rest.next() {
        let (flag, inline) = match argument.split_once('=') {
            Some((flag, value)) => (flag, Some(value.to_owned())),
            None => (argument.as_str(), None),
        };
        let slot = match flag {
            "--token" => &mut token,
            "--name" => &mut name,
            "--data-dir" => &mut data_dir,
            "--peer-url" => &mut peer_url,
            "--client-url" => &mut client_url,
            _ => {
                return Err(ConfigError::new(format!(
                    "quorate prepare form: {argument:?} is not a valid flag"
                )));
            }
        };
        let value = inline.or_else(|| rest.next().cloned());
        *slot = Some(value.filter(|value| !value.is_empty()).ok_or_else(|| {
            ConfigError::new(format!("quorate prepare form: {flag} needs a value"))
        })?);
    }
    let required = |flag: &str, value: Option<String>| {
        value.ok_or_else(|| ConfigError::new(format!("quorate prepare form: {flag} is missing")))
    };
    let urls = |flag: &str, value: Option<String>| {
        values::urls(&required(flag, value)?).map_err(|error| {
            ConfigError::new(format!("quorate prepare form: invalid value for {flag}: {error}"))
        })
    };
    Ok(Form {
        token: required("--token", token)?,
        name: required("--name", name)?,
        data_dir: required("--data-dir", data_dir)?.into(),
        peer_urls: urls("--peer-url", peer_url)?,
        client_urls: urls("--client-url", client_url)?,
    })
}
