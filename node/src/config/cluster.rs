//! Whom a member starts with: etcd's initial cluster, or a cluster that it joins.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
};

use super::{
    ConfigError,
    sources::Settings,
    values::{Url, list},
};

/// What a fresh data directory is for. Ignored once the directory holds a member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Start {
    /// `--initial-cluster-state=new`: form a cluster of these voters.
    New(InitialCluster),
    /// `--initial-cluster-state=existing`: ask these for the membership, and be the entry of one's own peer URLs.
    Existing(InitialCluster),
    /// `--join-cluster-id` and `--join-peers` (ours): ask whoever answers there, if it is of this cluster. Nothing
    /// about the membership is in the flags, so that they may stand in a template for good.
    Join {
        /// The cluster; a member of another one is not asked.
        cluster_id: u64,
        /// Where to ask; names are resolved anew at each dial.
        peers: Vec<Url>,
    },
}

/// etcd's `--initial-cluster`: names with their peer URLs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InitialCluster {
    /// By name, the URLs in order of their text.
    pub members: BTreeMap<String, Vec<Url>>,
}

impl InitialCluster {
    /// Reads `name=url,name=url`; a name may come several times (`client/pkg/types/urlsmap.go`).
    ///
    /// # Errors
    /// A bad URL, or a part without one.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut members: BTreeMap<String, Vec<Url>> = BTreeMap::new();
        for part in list(text) {
            let (name, url) = part.split_once('=').unwrap_or((part, ""));
            members.entry(name.to_owned()).or_default().push(Url::parse(url)?);
        }
        for urls in members.values_mut() {
            urls.sort_by_key(ToString::to_string);
        }
        Ok(Self { members })
    }

    /// Checks what etcd checks before it makes a member out of an empty directory (`config.go` VerifyBootstrap,
    /// VerifyJoinExisting). Names are not resolved: the URLs must be equal as texts.
    ///
    /// # Errors
    /// etcd's text for the first rule that is broken.
    pub fn verify(&self, name: &str, advertised: &[Url], forming: bool) -> Result<(), ConfigError> {
        let Some(own) = self.members.get(name) else {
            return Err(ConfigError::new(format!(
                "couldn't find local name {name:?} in the initial cluster configuration"
            )));
        };
        if forming {
            self.verify_advertised(name, own, advertised)?;
        }
        let mut seen = BTreeSet::new();
        if !self.members.values().flatten().all(|url| seen.insert(url)) {
            return Err(ConfigError::new(format!("initial cluster {self} has duplicate url")));
        }
        Ok(())
    }

    fn verify_advertised(
        &self,
        name: &str,
        own: &[Url],
        advertised: &[Url],
    ) -> Result<(), ConfigError> {
        let join = |urls: &mut dyn Iterator<Item = &Url>, before: &str| {
            urls.map(|url| format!("{before}{url}")).collect::<Vec<_>>().join(",")
        };
        let before = format!("{name}=");
        let unadvertised = join(&mut own.iter().filter(|url| !advertised.contains(url)), &before);
        if !unadvertised.is_empty() {
            return Err(ConfigError::new(format!(
                "--initial-cluster has {unadvertised} but missing from --initial-advertise-peer-urls={}",
                join(&mut advertised.iter(), "")
            )));
        }
        let unlisted = join(&mut advertised.iter().filter(|url| !own.contains(url)), "");
        if !unlisted.is_empty() {
            return Err(ConfigError::new(format!(
                "--initial-advertise-peer-urls has {unlisted} but missing from --initial-cluster={}",
                join(&mut own.iter(), &before)
            )));
        }
        Ok(())
    }
}

impl std::fmt::Display for InitialCluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let pairs =
            self.members.iter().flat_map(|(name, urls)| urls.iter().map(move |url| (name, url)));
        for (position, (name, url)) in pairs.enumerate() {
            if position > 0 {
                f.write_char(',')?;
            }
            write!(f, "{name}={url}")?;
        }
        Ok(())
    }
}

/// Reads the flags about the start.
///
/// # Errors
/// Flags that contradict each other, or values that cannot be read.
pub(super) fn start(
    settings: &Settings,
    name: &str,
    advertised: &[Url],
) -> Result<Start, ConfigError> {
    let joining = settings.is_given("join-cluster-id") || settings.is_given("join-peers");
    let state = settings.text("initial-cluster-state");
    if joining {
        return join(settings, state);
    }
    let text = settings.text("initial-cluster");
    // As etcd: only the name and the advertised URLs given makes a cluster of one (InitialClusterFromName).
    let cluster = if text.is_empty() {
        InitialCluster { members: BTreeMap::from([(name.to_owned(), advertised.to_vec())]) }
    } else {
        InitialCluster::parse(text).map_err(|error| {
            ConfigError::new(format!("error setting up initial cluster: {error}"))
        })?
    };
    match state {
        "new" => Ok(Start::New(cluster)),
        "existing" => Ok(Start::Existing(cluster)),
        _ => Err(ConfigError::new(format!("unexpected clusterState {state:?}"))),
    }
}

fn join(settings: &Settings, state: &str) -> Result<Start, ConfigError> {
    for other in ["initial-cluster", "initial-cluster-state"] {
        if settings.is_given(other) && !(other == "initial-cluster-state" && state == "existing") {
            return Err(ConfigError::new(format!(
                "{} and --join-cluster-id contradict each other: a member that joins asks its peers for the \
                 membership; give one of them",
                settings.label(other)
            )));
        }
    }
    let id = settings.text("join-cluster-id");
    let cluster_id = u64::from_str_radix(id.strip_prefix("0x").unwrap_or(id), 16)
        .ok()
        .filter(|id| *id != 0)
        .ok_or_else(|| {
            ConfigError::new(format!(
                "--join-cluster-id must be the cluster's id in hexadecimal, not {id:?}; the operator writes it, \
                 and `etcdctl member list -w fields` shows it"
            ))
        })?;
    let peers = super::values::urls(settings.text("join-peers"))
        .map_err(|error| ConfigError::new(format!("invalid value for --join-peers: {error}")))?;
    if peers.is_empty() {
        return Err(ConfigError::new(
            "--join-cluster-id needs --join-peers: where to ask for the membership",
        ));
    }
    Ok(Start::Join { cluster_id, peers })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn urls(text: &str) -> Vec<Url> {
        super::super::values::urls(text).unwrap()
    }

    #[test]
    fn a_name_may_have_several_urls() {
        let cluster = InitialCluster::parse("a=http://h:2,b=http://h:3,a=http://h:1").unwrap();
        assert_eq!(cluster.to_string(), "a=http://h:1,a=http://h:2,b=http://h:3");
        assert!(InitialCluster::parse("a").is_err());
        assert!(InitialCluster::parse("a=").is_err());
        assert!(InitialCluster::parse("a=http://h").is_err());
    }

    #[test]
    fn what_etcd_checks_before_it_forms_a_cluster() {
        let cluster = |text: &str| InitialCluster::parse(text).unwrap();
        for (text, name, advertised, expected) in [
            ("a=http://h:1", "a", "http://h:1", ""),
            ("a=http://h:1,b=http://h:2", "b", "http://h:2", ""),
            ("a=http://h:2,a=http://h:1", "a", "http://h:1,http://h:2", ""),
            (
                "a=http://h:1",
                "c",
                "http://h:1",
                "couldn't find local name \"c\" in the initial cluster configuration",
            ),
            (
                "a=http://h:1,a=http://h:2",
                "a",
                "http://h:1",
                "--initial-cluster has a=http://h:2 but missing from --initial-advertise-peer-urls=http://h:1",
            ),
            (
                "a=http://h:1",
                "a",
                "http://h:1,http://h:2",
                "--initial-advertise-peer-urls has http://h:2 but missing from --initial-cluster=a=http://h:1",
            ),
            (
                "a=http://h:1,b=http://h:1",
                "a",
                "http://h:1",
                "initial cluster a=http://h:1,b=http://h:1 has duplicate url",
            ),
        ] {
            let verdict = cluster(text).verify(name, &urls(advertised), true);
            let error = verdict.err().map(|error| error.to_string()).unwrap_or_default();
            assert_eq!(error, expected, "{text} as {name}");
        }
    }

    #[test]
    fn a_joiner_need_not_advertise_what_the_cluster_lists() {
        let cluster = InitialCluster::parse("a=http://h:1").unwrap();
        assert!(cluster.verify("a", &urls("http://other:1"), false).is_ok());
        assert!(cluster.verify("b", &urls("http://other:1"), false).is_err());
    }
}
