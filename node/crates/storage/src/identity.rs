//! The ids of members and clusters, computed as etcd computes them, so that a cluster formed by the same flags has the
//! same ids.
//!
//! Facts from etcd's `server/etcdserver/api/membership/{member,cluster}.go`; the known values of the tests were read
//! from a running etcd 3.7.3.

use quorate_consensus::MemberId;
use sha1::{Digest, Sha1};

/// The id of a cluster. Every message between members carries it, and every file names it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClusterId(pub u64);

/// etcd prints cluster ids in hexadecimal without leading zeros, and so do we.
impl std::fmt::Display for ClusterId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:x}", self.0)
    }
}

/// A set of members that cannot form a cluster.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum IdentityError {
    /// Two members hash to one id: they have the same peer URLs.
    #[error(
        "two members of the initial cluster have the same id {0}: their peer URLs are the same; give each member its own"
    )]
    Duplicate(MemberId),
    /// A member hashes to 0, which means "no member".
    #[error(
        "a member's peer URLs hash to id 0, which is reserved; change a peer URL or the cluster token"
    )]
    None,
    /// Nobody is in the list.
    #[error("the initial cluster is empty; name at least one member")]
    Empty,
}

/// The id of a member: the first eight bytes of SHA-1 over its peer URLs, sorted and joined by nothing, the cluster's
/// token, and, for a member added to a running cluster, the second of its addition in decimal.
#[must_use]
pub fn member_id<U: AsRef<str>>(
    peer_urls: &[U],
    cluster_token: &str,
    added_unix_seconds: Option<i64>,
) -> MemberId {
    let mut sorted: Vec<&str> = peer_urls.iter().map(AsRef::as_ref).collect();
    sorted.sort_unstable();
    let mut hash = Sha1::new();
    for url in sorted {
        hash.update(url.as_bytes());
    }
    hash.update(cluster_token.as_bytes());
    if let Some(seconds) = added_unix_seconds {
        hash.update(seconds.to_string().as_bytes());
    }
    MemberId(first_eight(hash))
}

/// The id of a cluster that these members form: the first eight bytes of SHA-1 over their ids, sorted, big-endian.
///
/// # Errors
/// When a member occurs twice, has the reserved id, or nobody is named.
pub fn cluster_id(members: &[MemberId]) -> Result<ClusterId, IdentityError> {
    let mut sorted = members.to_vec();
    sorted.sort_unstable();
    if sorted.is_empty() {
        return Err(IdentityError::Empty);
    }
    if sorted.contains(&MemberId::NONE) {
        return Err(IdentityError::None);
    }
    if let Some(pair) = sorted.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(IdentityError::Duplicate(pair[0]));
    }
    let mut hash = Sha1::new();
    for id in sorted {
        hash.update(id.0.to_be_bytes());
    }
    Ok(ClusterId(first_eight(hash)))
}

fn first_eight(hash: Sha1) -> u64 {
    let digest = hash.finalize();
    let first: [u8; 8] = digest[..8].try_into().expect("a SHA-1 digest has twenty bytes");
    u64::from_be_bytes(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `etcd` started without arguments; its ids are in every tutorial.
    #[test]
    fn the_default_cluster_has_etcds_well_known_ids() {
        let member = member_id(&["http://localhost:2380"], "etcd-cluster", None);
        assert_eq!(member.to_string(), "8e9e05c52164694d");
        assert_eq!(cluster_id(&[member]).unwrap().to_string(), "cdf818194e3a8c32");
    }

    /// Read from etcd 3.7.3: `etcdctl member list -w json` of a member with two peer URLs and token "tok-1".
    #[test]
    fn several_urls_are_sorted_and_the_token_counts() {
        let urls = ["http://127.0.0.1:32380", "http://10.1.2.3:2380"];
        let member = member_id(&urls, "tok-1", None);
        assert_eq!(member.0, 10_483_779_289_210_280_536);
        assert_eq!(cluster_id(&[member]).unwrap().0, 1_923_292_674_944_533_951);
        assert_ne!(member, member_id(&urls, "tok-2", None));
    }

    /// Read from the log of etcd 3.7.3 with `--initial-cluster a=…:32380,b=…:32381,c=…:32382`.
    #[test]
    fn three_members_have_etcds_ids_whatever_their_order() {
        let id = |port: u32| member_id(&[format!("http://127.0.0.1:{port}")], "etcd-cluster", None);
        let (a, b, c) = (id(32380), id(32381), id(32382));
        assert_eq!(a.to_string(), "628170c800dbcee");
        assert_eq!(b.to_string(), "bd377aac2f8c1bc");
        assert_eq!(c.to_string(), "85d9c989786a9942");
        for order in [[a, b, c], [c, a, b], [b, c, a]] {
            assert_eq!(cluster_id(&order).unwrap().to_string(), "3211eb74d6559d0c");
        }
    }

    #[test]
    fn the_second_of_an_addition_changes_the_id() {
        let at = |seconds| member_id(&["http://a:2380"], "t", seconds);
        assert_ne!(at(None), at(Some(1_700_000_000)));
        assert_ne!(at(Some(1_700_000_001)), at(Some(1_700_000_000)));
    }

    #[test]
    fn impossible_clusters_are_refused_by_name() {
        let a = MemberId(7);
        assert_eq!(cluster_id(&[]), Err(IdentityError::Empty));
        assert_eq!(cluster_id(&[a, MemberId(9), a]), Err(IdentityError::Duplicate(a)));
        assert_eq!(cluster_id(&[a, MemberId::NONE]), Err(IdentityError::None));
    }
}
