//! The names of everything: children, members, URLs. Pure functions of cluster, ordinal and
//! incarnation.

/// Port on which members serve clients, health and metrics.
pub const CLIENT_PORT: i32 = 2379;
/// Port on which members serve each other.
pub const PEER_PORT: i32 = 2380;
/// Name of the server container in member pods and in the formation Job.
pub const CONTAINER: &str = "store";
/// Where the claim is mounted.
pub const MOUNT_PATH: &str = "/var/lib/quorate";
/// Directory of the data, below the mount so that `lost+found` is not in it.
pub const DATA_DIR: &str = "/var/lib/quorate/data";

/// Name and namespace of a cluster: what all other names are made from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ClusterName {
    /// Name of the StoreCluster.
    pub name: String,
    /// Namespace of the StoreCluster and of all its children.
    pub namespace: String,
}

impl ClusterName {
    /// Name of a member in the store, and of its StatefulSet: `<cluster>-<ordinal>`.
    #[must_use]
    pub fn member(&self, ordinal: i32) -> String {
        format!("{}-{ordinal}", self.name)
    }

    /// Name of a member's one pod: `<cluster>-<ordinal>-0`.
    #[must_use]
    pub fn pod(&self, ordinal: i32) -> String {
        format!("{}-{ordinal}-0", self.name)
    }

    /// Name of a member's claim: `<cluster>-<ordinal>-<incarnation>`.
    #[must_use]
    pub fn claim(&self, ordinal: i32, incarnation: i64) -> String {
        format!("{}-{ordinal}-{incarnation}", self.name)
    }

    /// Name of the headless Service of the peers.
    #[must_use]
    pub fn peer_service(&self) -> String {
        format!("{}-peers", self.name)
    }

    /// Name of the Service that clients use.
    #[must_use]
    pub fn client_service(&self) -> String {
        format!("{}-client", self.name)
    }

    /// Name of the PodDisruptionBudget.
    #[must_use]
    pub fn budget(&self) -> String {
        format!("{}-voters", self.name)
    }

    /// Name of the Job that forms the cluster.
    #[must_use]
    pub fn formation_job(&self, incarnation: i64) -> String {
        format!("{}-form-{incarnation}", self.name)
    }

    /// DNS name of the headless Service, which the joiners re-resolve at each dial.
    #[must_use]
    pub fn peer_domain(&self) -> String {
        format!("{}.{}.svc", self.peer_service(), self.namespace)
    }

    /// DNS name of a member's pod.
    #[must_use]
    pub fn host(&self, ordinal: i32) -> String {
        format!("{}.{}", self.pod(ordinal), self.peer_domain())
    }

    /// URL that a member advertises to its peers; the joiner finds its own entry by it.
    #[must_use]
    pub fn peer_url(&self, ordinal: i32) -> String {
        format!("http://{}:{PEER_PORT}", self.host(ordinal))
    }

    /// URL that a member advertises to clients; the operator asks it there too.
    #[must_use]
    pub fn client_url(&self, ordinal: i32) -> String {
        format!("http://{}:{CLIENT_PORT}", self.host(ordinal))
    }

    /// URL of the client Service.
    #[must_use]
    pub fn client_service_url(&self) -> String {
        format!("http://{}.{}.svc:{CLIENT_PORT}", self.client_service(), self.namespace)
    }

    /// The ordinal that a peer URL of this cluster belongs to; `None` for a URL that is not of our
    /// making.
    #[must_use]
    pub fn ordinal_of_peer_url(&self, url: &str) -> Option<i32> {
        let host = url.strip_prefix("http://")?.strip_suffix(&format!(":{PEER_PORT}"))?;
        let pod = host.strip_suffix(&format!(".{}", self.peer_domain()))?;
        let ordinal = pod.strip_prefix(&format!("{}-", self.name))?.strip_suffix("-0")?;
        let ordinal: i32 = ordinal.parse().ok()?;
        (ordinal >= 0 && self.peer_url(ordinal) == url).then_some(ordinal)
    }
}

/// An id of the store as status and annotations show it: lower-case hexadecimal without leading
/// zeros, as etcdctl does.
#[must_use]
pub fn hex(id: u64) -> String {
    format!("{id:x}")
}

/// The id that [`hex`] wrote; `None` if the text is not one.
#[must_use]
pub fn parse_hex(text: &str) -> Option<u64> {
    let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    plain.then(|| u64::from_str_radix(text, 16).ok()).flatten()
}
