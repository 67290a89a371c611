//! The table of every call that is served: its path, its shape, and who may make it.

/// How many messages go which way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// One and one.
    Unary,
    /// One and many.
    ServerStream,
    /// Many and many.
    BidiStream,
}

impl Shape {
    /// As etcd's metrics name it (`grpc_type`).
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Unary => "unary",
            Self::ServerStream => "server_stream",
            Self::BidiStream => "bidi_stream",
        }
    }
}

/// A call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// KV/Range
    Range,
    /// KV/Put
    Put,
    /// KV/Txn
    Txn,
    /// KV/DeleteRange
    DeleteRange,
    /// KV/RangeStream
    RangeStream,
    /// KV/Compact
    Compact,
    /// Watch/Watch
    Watch,
    /// Lease/LeaseGrant
    LeaseGrant,
    /// Lease/LeaseRevoke
    LeaseRevoke,
    /// Lease/LeaseKeepAlive
    LeaseKeepAlive,
    /// Lease/LeaseTimeToLive
    LeaseTimeToLive,
    /// Lease/LeaseLeases
    LeaseLeases,
    /// Cluster/MemberAdd
    MemberAdd,
    /// Cluster/MemberRemove
    MemberRemove,
    /// Cluster/MemberUpdate
    MemberUpdate,
    /// Cluster/MemberList
    MemberList,
    /// Cluster/MemberPromote
    MemberPromote,
    /// Maintenance/Alarm
    Alarm,
    /// Maintenance/Status
    Status,
    /// Maintenance/Defragment
    Defragment,
    /// Maintenance/Hash
    Hash,
    /// Maintenance/HashKV
    HashKv,
    /// Maintenance/MoveLeader
    MoveLeader,
    /// Health/Check
    HealthCheck,
    /// Health/Watch
    HealthWatch,
}

/// A row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Method {
    /// The call.
    pub call: Call,
    /// `/service/method`
    pub path: &'static str,
    /// How many messages go which way.
    pub shape: Shape,
    /// Whether a learner answers it. Range decides for itself: a learner answers serializable ones.
    pub by_learners: bool,
}

impl Method {
    /// The path's two parts.
    #[must_use]
    pub fn names(&self) -> (&'static str, &'static str) {
        self.path[1..].split_once('/').expect("paths have two parts")
    }
}

const fn row(call: Call, path: &'static str, shape: Shape) -> Method {
    Method { call, path, shape, by_learners: false }
}

const fn row_for_all(call: Call, path: &'static str, shape: Shape) -> Method {
    Method { call, path, shape, by_learners: true }
}

/// How many calls there are.
pub const COUNT: usize = 25;

/// Every call, the hot ones first; a row's place is its [`Call`] as a number.
pub const METHODS: [Method; COUNT] = [
    row_for_all(Call::Range, "/etcdserverpb.KV/Range", Shape::Unary),
    row(Call::Put, "/etcdserverpb.KV/Put", Shape::Unary),
    row(Call::Txn, "/etcdserverpb.KV/Txn", Shape::Unary),
    row(Call::DeleteRange, "/etcdserverpb.KV/DeleteRange", Shape::Unary),
    row(Call::RangeStream, "/etcdserverpb.KV/RangeStream", Shape::ServerStream),
    row(Call::Compact, "/etcdserverpb.KV/Compact", Shape::Unary),
    row(Call::Watch, "/etcdserverpb.Watch/Watch", Shape::BidiStream),
    row(Call::LeaseGrant, "/etcdserverpb.Lease/LeaseGrant", Shape::Unary),
    row(Call::LeaseRevoke, "/etcdserverpb.Lease/LeaseRevoke", Shape::Unary),
    row(Call::LeaseKeepAlive, "/etcdserverpb.Lease/LeaseKeepAlive", Shape::BidiStream),
    row(Call::LeaseTimeToLive, "/etcdserverpb.Lease/LeaseTimeToLive", Shape::Unary),
    row(Call::LeaseLeases, "/etcdserverpb.Lease/LeaseLeases", Shape::Unary),
    row(Call::MemberAdd, "/etcdserverpb.Cluster/MemberAdd", Shape::Unary),
    row(Call::MemberRemove, "/etcdserverpb.Cluster/MemberRemove", Shape::Unary),
    row(Call::MemberUpdate, "/etcdserverpb.Cluster/MemberUpdate", Shape::Unary),
    row(Call::MemberList, "/etcdserverpb.Cluster/MemberList", Shape::Unary),
    row(Call::MemberPromote, "/etcdserverpb.Cluster/MemberPromote", Shape::Unary),
    row(Call::Alarm, "/etcdserverpb.Maintenance/Alarm", Shape::Unary),
    row_for_all(Call::Status, "/etcdserverpb.Maintenance/Status", Shape::Unary),
    row(Call::Defragment, "/etcdserverpb.Maintenance/Defragment", Shape::Unary),
    row(Call::Hash, "/etcdserverpb.Maintenance/Hash", Shape::Unary),
    row(Call::HashKv, "/etcdserverpb.Maintenance/HashKV", Shape::Unary),
    row(Call::MoveLeader, "/etcdserverpb.Maintenance/MoveLeader", Shape::Unary),
    row_for_all(Call::HealthCheck, "/grpc.health.v1.Health/Check", Shape::Unary),
    row_for_all(Call::HealthWatch, "/grpc.health.v1.Health/Watch", Shape::ServerStream),
];

/// The row of a path.
#[must_use]
pub fn find(path: &str) -> Option<&'static Method> {
    METHODS.iter().find(|method| method.path == path)
}

#[cfg(test)]
mod tests {
    use quorate_proto::DESCRIPTOR_SET;

    use super::*;

    #[test]
    fn a_rows_place_is_its_number() {
        for (place, method) in METHODS.iter().enumerate() {
            assert_eq!(method.call as usize, place, "{}", method.path);
            assert_eq!(find(method.path).map(|found| found.call), Some(method.call));
        }
    }

    #[test]
    fn every_path_is_in_the_contract() {
        let contract = String::from_utf8_lossy(DESCRIPTOR_SET);
        for method in METHODS.iter().filter(|method| method.path.starts_with("/etcdserverpb")) {
            let (service, name) = method.names();
            let service = service.strip_prefix("etcdserverpb.").unwrap();
            assert!(contract.contains(service) && contract.contains(name), "{}", method.path);
        }
    }
}
