//! This member tells the cluster its name, client URLs, data directory and feature level, once they are not yet known.

use std::time::Duration;

use quorate_machine::{Command, FeatureLevel, Incarnation};
use tracing::{info, warn};

use crate::handle::{Caller, Handle, ProposeError};

/// What this member says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publication {
    /// `--name`
    pub name: String,
    /// `--advertise-client-urls`
    pub client_urls: Vec<String>,
    /// The data directory that it lives from.
    pub incarnation: Incarnation,
    /// The highest feature level that it knows.
    pub feature_level: FeatureLevel,
}

/// How often an applied membership is looked at until the publication is in it.
const RETRY: Duration = Duration::from_millis(200);

/// Publishes, and returns once the applied membership says so. A member that is not in it yet (a joiner before its snapshot)
/// waits for that.
pub async fn run(handle: Handle, publication: Publication) {
    let mut interval = tokio::time::interval(RETRY);
    loop {
        interval.tick().await;
        let published = handle.published();
        let id = handle.member_id();
        let Some(known) = published.members.iter().find(|member| member.id == id) else { continue };
        let says = Publication {
            name: known.name.clone(),
            client_urls: known.client_urls.clone(),
            incarnation: known.incarnation,
            feature_level: known.feature_level,
        };
        if says == publication {
            if handle.leadership().leader.0 == 0 {
                continue;
            }
            // As in etcd (`embed/serve.go`, ReadyNotify), this is said when there is a leader: who waits for it may send
            // requests that fail without one.
            info!(
                name = publication.name,
                urls = publication.client_urls.join(","),
                "published to the cluster; ready to serve client requests"
            );
            return;
        }
        let command = Command::MemberPublish {
            id,
            name: publication.name.clone(),
            client_urls: publication.client_urls.clone(),
            incarnation: publication.incarnation,
            feature_level: publication.feature_level,
        };
        match handle.propose(command, Caller::default()).await {
            Ok(_) => {}
            // A member that is removed or asked to stop before it is known has nobody left to tell.
            Err(ProposeError::Stopping) => return,
            Err(error) => warn!("cannot publish this member yet: {error}"),
        }
    }
}
