//! Report: writes the status of a cluster under its resourceVersion.

use kube::ResourceExt as _;
use kube::api::{Api, PostParams};
use quorate_crds::{StoreCluster, StoreClusterStatus};

use crate::run::OPERATOR;

/// Replaces the status of a cluster, provided that nobody has written to the object since it was
/// read: the status is the operator's memory, and a memory that was decided on an older one is
/// wrong. A replacement and not a merge patch, since a field that is gone has to go.
///
/// Returns the object as written, whose resourceVersion is the precondition of the next write.
pub(crate) async fn write(
    api: &Api<StoreCluster>,
    cluster: &StoreCluster,
    status: StoreClusterStatus,
) -> Result<StoreCluster, kube::Error> {
    let mut next = cluster.clone();
    next.status = Some(status);
    let params = PostParams { field_manager: Some(OPERATOR.to_owned()), ..PostParams::default() };
    api.replace_status(&cluster.name_any(), &params, &next).await
}

/// Whether the API server kept the whole status. It drops fields that its resource definition does
/// not have, which is what an operator that is newer than the definitions meets: its memory would
/// have holes, and every pass would write the same again.
///
/// Compared as JSON: a time has a fraction of a second before it is written and none after.
pub(crate) fn is_kept(sent: &StoreClusterStatus, written: Option<&StoreClusterStatus>) -> bool {
    let json = |status| serde_json::to_value(status).ok();
    written.is_some_and(|written| json(written) == json(sent))
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use quorate_crds::{OperationKind, OperationStatus};

    use super::*;

    #[test]
    fn a_status_that_lost_a_field_is_noticed_and_a_rounded_time_is_not() {
        let since = Time("2026-11-23T12:00:00.123456789Z".parse::<Timestamp>().unwrap());
        let operation = OperationStatus { kind: OperationKind::Join, ordinal: 1, since };
        let sent = StoreClusterStatus { operation: Some(operation), ..Default::default() };
        let text = serde_json::to_string(&sent).unwrap();
        let mut written: StoreClusterStatus = serde_json::from_str(&text).unwrap();
        assert!(is_kept(&sent, Some(&written)));
        written.operation = None;
        assert!(!is_kept(&sent, Some(&written)));
        assert!(!is_kept(&sent, None));
    }
}
